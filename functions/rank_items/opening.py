"""Load the model of an instance, and what lets it change while it serves."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from threadpoolctl import threadpool_limits

from chassis.telemetry.instruments import Instrument, Totals
from functions.rank_items.drift import Drift
from functions.rank_items.following import CatalogueFollower
from functions.rank_items.live_model import LiveModel
from functions.rank_items.loading import LoadedModel, load_model, reload_model
from functions.rank_items.rules import apply_rules
from functions.rank_items.settings import Settings
from recsys import metrics
from recsys.catalogue.entries import Entry
from recsys.ranking.model import RankingModel


@dataclass(frozen=True)
class OpenedModel:
    """
    The model of an instance.

    Attributes:
        loaded: The model of the artefact, with the facts about its loading.
        live: The model in use.
        follower: Reads the changes of the catalogue; None without a catalogue.
        drift: Counts requests, to compare them with the training.
    """

    loaded: LoadedModel
    live: LiveModel
    follower: CatalogueFollower | None
    drift: Drift

    def instruments(self) -> list[Instrument]:
        """Return the metrics of the model and of the catalogue."""
        revision = Totals(metrics.CATALOGUE, lambda: {(): self.follower.revision if self.follower else 0})
        return [*self.loaded.instruments(), revision, *self.drift.instruments()]


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
    ):
        load = partial(
            load_model,
            settings.model_path,
            workers=workers,
            pool=pool,
            probes=settings.probes,
            provider=settings.provider,
        )
        loaded = await asyncio.to_thread(
            load, min_recall=settings.min_recall, declaration=settings.declaration, rules=settings.rules
        )

        def rebuild(entries: Mapping[str, Entry]) -> RankingModel:
            changed = reload_model(
                settings.model_path,
                entries,
                version=loaded.model.identity.version,
                workers=workers,
                pool=pool,
                probes=settings.probes,
                provider=settings.provider,
            )
            return apply_rules(loaded.rules, changed)

        live = LiveModel(loaded.model, rebuild=rebuild)
        follower = None
        if settings.catalogue_url is not None:
            follower = CatalogueFollower(live, settings.catalogue_url, password=settings.catalogue_password)
        drift = Drift(
            loaded.reference,
            version=loaded.model.identity.version,
            knows=lambda item_id: live.model.row_of(item_id) is not None,
        )
        yield OpenedModel(loaded, live, follower, drift)
