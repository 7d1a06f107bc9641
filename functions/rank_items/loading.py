"""The artefact on disk becomes a model that ranks."""

import time
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from recsys.ranking.artefact import MANIFEST, read_artefact
from recsys.ranking.model import RankingModel
from recsys.telemetry import definitions
from recsys.telemetry.instruments import Instrument, Totals


@dataclass(frozen=True)
class LoadedModel:
    """
    A model and what is to be known of its loading.

    Attributes:
        model: Ranks.
        load_s: Seconds that reading and verifying took.
        written: When the artefact was written, seconds since the epoch.
    """

    model: RankingModel
    load_s: float
    written: float

    def instruments(self) -> list[Instrument]:
        """Return what there is to scrape."""
        identity = (self.model.identity.name, self.model.identity.version)
        return [
            Totals(definitions.MODEL, lambda: {identity: 1.0}),
            Totals(definitions.MODEL_LOAD, lambda: {(): self.load_s}),
            Totals(definitions.MODEL_AGE, lambda: {(): time.time() - self.written}),
        ]


def load_model(folder: Path, *, workers: int, pool: Executor) -> LoadedModel:
    """
    Read and verify the artefact in *folder*.

    Args:
        folder: Of the artefact.
        workers: Threads that share a large catalogue.
        pool: Where they run; not where the model is called from.

    Raises:
        ArtefactError: it cannot be served; the message says why.
    """
    began = time.monotonic()
    model = RankingModel(read_artefact(folder), workers=workers, pool=pool)
    return LoadedModel(model, time.monotonic() - began, (folder / MANIFEST).stat().st_mtime)
