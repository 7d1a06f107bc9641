"""The artefact on disk becomes a model that ranks."""

import time
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from chassis.server.service import StartError
from chassis.telemetry.instruments import Instrument, Totals
from recsys import metrics
from recsys.ranking.artefact import MANIFEST, ArtefactError, read_artefact
from recsys.ranking.model import RankingModel


@dataclass(frozen=True)
class LoadedModel:
    """
    A model and what is to be known of its loading.

    Attributes:
        model: Ranks.
        load_s: Seconds that reading and verifying took.
        written: When the artefact was written, seconds since the epoch.
        recall: Which share of the exact answer its index finds; 1 where everything is looked at.
    """

    model: RankingModel
    load_s: float
    written: float
    recall: float

    def instruments(self) -> list[Instrument]:
        """Return what there is to scrape."""
        identity = (self.model.identity.name, self.model.identity.version)
        return [
            Totals(metrics.MODEL, lambda: {identity: 1.0}),
            Totals(metrics.MODEL_LOAD, lambda: {(): self.load_s}),
            Totals(metrics.INDEX_RECALL, lambda: {(): self.recall}),
            Totals(metrics.MODEL_AGE, lambda: {(): time.time() - self.written}),
        ]


def load_model(folder: Path, *, workers: int, pool: Executor, probes: int = 0, min_recall: float = 0.0) -> LoadedModel:
    """
    Read and verify the artefact in *folder*.

    Args:
        folder: Of the artefact.
        workers: Threads that share a large catalogue.
        pool: Where they run; not where the model is called from.
        probes: Groups of an approximate index looked at per user; 0 for no index.
        min_recall: What the index has to find of the exact answer.

    Raises:
        StartError: it cannot be served; the message says why.
    """
    began = time.monotonic()
    try:
        model = RankingModel(read_artefact(folder), workers=workers, pool=pool, probes=probes)
    except ArtefactError as error:
        raise StartError(str(error)) from error
    recall = model.measure_recall()
    if recall < min_recall:
        raise StartError(
            f"the approximate index finds {recall:.3f} of the exact answer, below INDEX_MIN_RECALL ({min_recall}); "
            "raise INDEX_PROBES, or set INDEX=exact"
        )
    return LoadedModel(model, time.monotonic() - began, (folder / MANIFEST).stat().st_mtime, recall)
