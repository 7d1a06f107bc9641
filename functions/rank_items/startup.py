"""Load the model of an instance, and what lets it change while it serves."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypedDict

from threadpoolctl import threadpool_limits

from chassis.server.service import StartError
from chassis.telemetry.instruments import Instrument, Totals
from functions.rank_items.catalogue_follower import CatalogueFollower
from functions.rank_items.drift import Drift
from functions.rank_items.model_loader import LoadedModel, Rebuild, load_model, reload_model
from functions.rank_items.renewal import ModelFollower
from functions.rank_items.settings import Settings
from recrank.declared_rules import apply_rules
from recrank.model import RankingModel
from recrank.onnx_model import Provider
from recrank.places import PlaceError
from recrank.sources import ModelSource, opened_source
from recstore.catalogue.entries import Entry
from recsys import metrics


class _Options(TypedDict):
    workers: int
    pool: Executor
    probes: int
    provider: Provider


@dataclass(frozen=True)
class OpenedModel:
    """
    The model of an instance.

    Attributes:
        model: The artefact, and the model in use.
        follower: Reads the changes of the catalogue; None without a catalogue.
        drift: Counts requests, to compare them with the training.
    """

    model: ModelFollower
    follower: CatalogueFollower | None
    drift: Drift

    def instruments(self) -> list[Instrument]:
        """Return the metrics of the model and of the catalogue."""
        revision = Totals(metrics.CATALOGUE, lambda: {(): self.follower.revision if self.follower else 0})
        return [*self.model.instruments(), revision, *self.drift.instruments()]


@asynccontextmanager
async def opened_model(settings: Settings) -> AsyncIterator[OpenedModel]:
    """
    Load and verify the model of *settings*; its threads end with the block.

    Raises:
        StartError: see `load_model`.
    """
    workers = max(1, round(settings.cpu_limit))
    with (
        # The ranking code distributes work over `pool`. BLAS's own threads would wait for each other in every product.
        threadpool_limits(limits=1),
        ThreadPoolExecutor(workers, thread_name_prefix="score") as pool,
        _source_of(settings) as source,
    ):
        options = _Options(workers=workers, pool=pool, probes=settings.probes, provider=settings.provider)
        load = partial(
            load_model,
            min_recall=settings.min_recall,
            declaration=settings.declaration,
            rules=settings.rules,
            **options,
        )
        rebuild = partial(_rebuild_of, options)
        model = await asyncio.to_thread(ModelFollower, source, load=load, rebuild=rebuild)
        follower = None
        if settings.catalogue_url is not None:
            follower = CatalogueFollower(model.live, settings.catalogue_url, password=settings.catalogue_password)
        drift = Drift(
            model.loaded.reference,
            version=model.loaded.identity[1],
            knows=lambda item_id: model.live.model.row_of(item_id) is not None,
        )
        model.taken_over = lambda loaded: drift.follow(loaded.reference, version=loaded.identity[1])
        yield OpenedModel(model, follower, drift)


def _rebuild_of(options: _Options, loaded: LoadedModel) -> Rebuild:
    """Return a function that gives the model of *loaded* with changes of the catalogue."""

    def rebuild(entries: Mapping[str, Entry]) -> RankingModel:
        changed = reload_model(loaded.folder, entries, version=loaded.model.identity.version, **options)
        return apply_rules(loaded.rules, changed)

    return rebuild


@contextmanager
def _source_of(settings: Settings) -> Iterator[ModelSource]:
    with ExitStack() as stack:
        try:
            source = stack.enter_context(opened_source(settings.model_place))
        except PlaceError as error:
            raise StartError(str(error)) from error
        yield source
