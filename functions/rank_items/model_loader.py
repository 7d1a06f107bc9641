"""Load the model from the artefact on disk."""

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

from chassis.server.service import StartError
from chassis.telemetry.instruments import Instrument, Totals
from recrank.artefact import MANIFEST, ArtefactError, read_artefact
from recrank.changes import change
from recrank.declared_rules import apply_rules
from recrank.model import RankingModel
from recrank.onnx_model import Provider
from recrank.own_models import open_model
from recrank.reference import Reference
from recstore.catalogue.entries import Entry
from recsys import metrics
from recsys.declaration.agreement import agree
from recsys.declaration.reader import DeclarationError
from recsys.declaration.types import ContextField, Declaration, DeclaredRules

log = logging.getLogger("recsys.rank_items")

Rebuild = Callable[[Mapping[str, Entry]], RankingModel]
"""Makes the model of an artefact and the entries of a catalogue."""

# Items without a known attribute value that the log names.
_SHOWN = 10


@dataclass(frozen=True)
class LoadedModel:
    """
    A model and the facts about its loading.

    Attributes:
        model: The model, ready to rank.
        load_s: Seconds that reading and verifying took.
        written: Time at which the artefact was written, in seconds since the epoch.
        recall: Share of the exact answer that the index finds; 1 without an index.
        rules: The rules of every answer.
        context: The declared values that a request may carry, by name.
        reference: Distributions of the training data; None if the artefact has none.
        declaration: Digest of the declaration in the artefact.
        folder: Folder of the artefact.
    """

    model: RankingModel
    load_s: float
    written: float
    recall: float
    rules: DeclaredRules = field(default_factory=DeclaredRules)
    context: Mapping[str, ContextField] = field(default_factory=dict)
    reference: Reference | None = None
    declaration: str = ""
    folder: Path = Path()

    @property
    def identity(self) -> tuple[str, str]:
        """Name and version of the artefact."""
        return self.model.identity.name, self.model.identity.version


def model_instruments(loaded: Callable[[], LoadedModel]) -> list[Instrument]:
    """Return the metrics of the model that *loaded* returns now."""
    return [
        Totals(metrics.MODEL, lambda: {loaded().identity: 1.0}),
        Totals(metrics.MODEL_LOAD, lambda: {(): loaded().load_s}),
        Totals(metrics.INDEX_RECALL, lambda: {(): loaded().recall}),
        Totals(metrics.RANKING, lambda: {(phase,): seconds for phase, seconds in loaded().model.seconds.items()}),
        Totals(metrics.MODEL_AGE, lambda: {(): time.time() - loaded().written}),
    ]


def reload_model(
    folder: Path,
    entries: Mapping[str, Entry],
    *,
    version: str,
    workers: int,
    pool: Executor,
    probes: int = 0,
    provider: Provider = "cpu",
) -> RankingModel:
    """
    Read the artefact again, and return its model with the *entries* of the catalogue.

    The artefact is read again because a model does not keep it. An instance therefore needs memory for two models
    while it takes over new items or descriptions.

    Raises:
        ArtefactError: the artefact has another *version* now, or cannot be served.
    """
    artefact = read_artefact(folder)
    if artefact.manifest.version != version:
        raise ArtefactError(f"{folder}: holds version {artefact.manifest.version} now, not {version}; restart")
    changed, unplaced = change(artefact, entries)
    log.info("catalogue_applied", extra={"items": len(changed.items), "unplaced": unplaced[:_SHOWN]})
    return open_model(changed, provider=provider, workers=workers, pool=pool, probes=probes)


def load_model(
    folder: Path,
    *,
    workers: int,
    pool: Executor,
    probes: int = 0,
    min_recall: float = 0.0,
    provider: Provider = "cpu",
    declaration: Declaration | None = None,
    rules: DeclaredRules | None = None,
) -> LoadedModel:
    """
    Read and verify the artefact in *folder*, and let the model follow its rules.

    Args:
        folder: Folder of the artefact.
        workers: Threads that share a large catalogue.
        pool: Runs these threads; the model must be called from another pool.
        probes: Groups of an approximate index to scan per user; 0 for no index.
        min_recall: Least share of the exact answer that the index must find.
        provider: The device that runs ONNX files.
        declaration: The declaration that the artefact must agree with; None follows the artefact's.
        rules: Rules of every answer; None for those of the declaration.

    Raises:
        StartError: the artefact or the rules cannot be served; the message says why.
    """
    began = time.monotonic()
    try:
        artefact = read_artefact(folder)
        agreed = agree(declaration, artefact.declaration, holder="the model", features=True)
        followed = rules or agreed.rules
        model = apply_rules(
            followed, open_model(artefact, provider=provider, workers=workers, pool=pool, probes=probes)
        )
    except (ArtefactError, DeclarationError) as error:
        raise StartError(str(error)) from error
    recall = model.measure_recall()
    if recall < min_recall:
        raise StartError(
            f"the approximate index finds {recall:.3f} of the exact answer, below INDEX_MIN_RECALL ({min_recall}); "
            "raise INDEX_PROBES, or set INDEX=exact"
        )
    written = (folder / MANIFEST).stat().st_mtime
    return LoadedModel(
        model,
        time.monotonic() - began,
        written,
        recall,
        followed,
        agreed.context or {},
        artefact.manifest.reference,
        artefact.declaration.digest,
        folder,
    )
