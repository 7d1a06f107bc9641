"""rank_items: configuration -> model -> batcher -> handler."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial

from threadpoolctl import threadpool_limits

from chassis.batching.batcher import Batcher
from chassis.server.asgi import as_function
from chassis.server.service import Service
from chassis.simulation import slow_batches
from chassis.telemetry.exposition import Exposition
from chassis.telemetry.instruments import Totals
from functions.rank_items.availability import kept_available
from functions.rank_items.following import CatalogueFollower, catalogue_followed
from functions.rank_items.handler import RankItems
from functions.rank_items.live_model import LiveModel
from functions.rank_items.loading import load_model, reload_model
from functions.rank_items.rules import apply_rules
from functions.rank_items.settings import Settings
from recsys import metrics
from recsys.catalogue.entries import Entry
from recsys.contracts.pages import pages_of
from recsys.ranking.model import Query, Ranking, RankingModel

settings = Settings.from_env(os.environ)


@asynccontextmanager
async def open_handler(exposition: Exposition | None = None) -> AsyncIterator[RankItems]:
    """Load and verify the model, and rank once; add the metrics to *exposition*, or to the service's."""
    workers = max(1, round(settings.cpu_limit))
    with (
        # The ranking code distributes work over `pool`. BLAS's own threads would wait for each other in every product.
        threadpool_limits(limits=1),
        ThreadPoolExecutor(workers, thread_name_prefix="score") as pool,
        ThreadPoolExecutor(1, thread_name_prefix="batch") as executor,
    ):
        load = partial(load_model, settings.model_path, workers=workers, pool=pool, probes=settings.probes)
        loaded = await asyncio.to_thread(
            load, min_recall=settings.min_recall, declaration=settings.declaration, rules=settings.rules
        )
        identity = loaded.model.identity

        def rebuild(entries: Mapping[str, Entry]) -> RankingModel:
            changed = reload_model(
                settings.model_path,
                entries,
                version=identity.version,
                workers=workers,
                pool=pool,
                probes=settings.probes,
            )
            return apply_rules(loaded.rules, changed)

        live = LiveModel(loaded.model, rebuild=rebuild)
        follower = _follower(live)
        batcher: Batcher[Query, Ranking] = Batcher(
            slow_batches(live.rank, settings.simulated_latency_s),
            limits=settings.batch,
            executor=executor,
            arriving=lambda: service.arriving(within_s=settings.batch.max_wait_s),
        )
        await batcher.submit(loaded.model.typical_query(), deadline=time.monotonic() + 60)
        revision = Totals(metrics.CATALOGUE, lambda: {(): follower.revision if follower else 0})
        (exposition or service.exposition).add([*loaded.instruments(), *batcher.instruments(), revision])
        async with kept_available(live, settings.unavailable_path), catalogue_followed(follower):
            yield RankItems(batcher, model=identity, attributes=lambda: live.attributes, filters=loaded.rules.filters)
        batcher.drain()


def _follower(live: LiveModel) -> CatalogueFollower | None:
    if settings.catalogue_url is None:
        return None
    return CatalogueFollower(live, settings.catalogue_url, password=settings.catalogue_password)


service = Service("rank-items", open_handler, settings=settings.serving, pages=pages_of("rank_items"))
handle = as_function(service)
