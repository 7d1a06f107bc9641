"""rank_items: configuration -> model -> batcher -> handler."""

import os
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from chassis.batching.batcher import Batcher
from chassis.server.asgi import as_function
from chassis.server.service import Service
from chassis.telemetry.exposition import Exposition
from functions.rank_items.availability import kept_available
from functions.rank_items.catalogue_follower import catalogue_followed
from functions.rank_items.handler import RankItems
from functions.rank_items.renewal import model_followed
from functions.rank_items.settings import Settings
from functions.rank_items.simulation import slow_batches
from functions.rank_items.startup import opened_model
from recrank.model import Query, Ranking
from recsys.contracts.pages import pages_of

settings = Settings.from_env(os.environ)


@asynccontextmanager
async def open_handler(exposition: Exposition | None = None) -> AsyncIterator[RankItems]:
    """Load and verify the model, and rank once; add the metrics to *exposition*, or to the service's."""
    with ThreadPoolExecutor(1, thread_name_prefix="batch") as executor:
        async with opened_model(settings) as opened:
            live, loaded = opened.model.live, opened.model.loaded
            batcher: Batcher[Query, Ranking] = Batcher(
                slow_batches(opened.drift.watching(live.rank), settings.simulated_latency_s),
                limits=settings.batch,
                executor=executor,
                arriving=lambda: service.arriving(within_s=settings.batch.max_wait_s),
            )
            await batcher.submit(live.model.typical_query(), deadline=time.monotonic() + 60)
            (exposition or service.exposition).add([*opened.instruments(), *batcher.instruments()])
            async with (
                kept_available(live, settings.unavailable_path),
                catalogue_followed(opened.follower),
                model_followed(opened.model),
            ):
                yield RankItems(
                    batcher,
                    model=live.model.identity,
                    attributes=lambda: live.model.attributes,
                    filters=loaded.rules.filters,
                    context=loaded.context,
                    catalogue=lambda: live.model,
                )
            batcher.drain()


service = Service("rank-items", open_handler, settings=settings.serving, pages=pages_of("rank_items"))
handle = as_function(service)
