"""The entry point of extract_features: joins configuration, store and handler."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chassis.server.asgi import as_function
from chassis.server.service import Service
from chassis.telemetry.exposition import Exposition
from functions.extract_features.handler import ExtractFeatures
from functions.extract_features.population import population_followed
from functions.extract_features.settings import Settings
from functions.extract_features.startup import opened_store
from recsys.contracts.pages import pages_of

settings = Settings.from_env(os.environ)


@asynccontextmanager
async def open_handler(exposition: Exposition | None = None) -> AsyncIterator[ExtractFeatures]:
    """
    Open the store, read from it once, and yield the handler; add its metrics to *exposition*, or to the service's.

    Raises:
        StartError: see `opened_store`.
    """
    async with opened_store(settings) as opened:
        handler = ExtractFeatures(
            opened.store,
            population=opened.population,
            history_limit=settings.history_limit,
            declaration=opened.declaration,
            reply_to_interactions=settings.reply_to_interactions,
            simulated_latency_s=settings.simulated_latency_s,
            catalogue=opened.catalogue,
            exposures=opened.exposures,
        )
        kept = opened.exposures.instruments() if opened.exposures else []
        (exposition or service.exposition).add([*handler.ingest.instruments(), *kept])
        async with population_followed(opened.store, handler.assume), handler.ingest.scrubber.running():
            yield handler


service = Service("extract-features", open_handler, settings=settings.serving, pages=pages_of("extract_features"))
handle = as_function(service)
