"""rank_items: configuration -> model -> batcher -> handler."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial

from threadpoolctl import threadpool_limits

from chassis.batching.batcher import Batcher
from chassis.server.asgi import as_function
from chassis.server.service import Service
from chassis.simulation import slow_batches
from chassis.telemetry.exposition import Exposition
from functions.rank_items.availability import kept_available
from functions.rank_items.handler import RankItems
from functions.rank_items.loading import load_model
from functions.rank_items.settings import Settings
from recsys.contracts.pages import pages_of
from recsys.ranking.model import Query, Ranking

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
        model = loaded.model
        batcher: Batcher[Query, Ranking] = Batcher(
            slow_batches(model.rank, settings.simulated_latency_s),
            limits=settings.batch,
            executor=executor,
            arriving=lambda: service.arriving(within_s=settings.batch.max_wait_s),
        )
        await batcher.submit(model.typical_query(), deadline=time.monotonic() + 60)
        (exposition or service.exposition).add([*loaded.instruments(), *batcher.instruments()])
        async with kept_available(model, settings.unavailable_path):
            named, filters = model.identity, loaded.rules.filters
            yield RankItems(batcher, model=named, attributes=model.attributes, filters=filters, catalogue=model)
        batcher.drain()


service = Service("rank-items", open_handler, settings=settings.serving, pages=pages_of("rank_items"))
handle = as_function(service)
