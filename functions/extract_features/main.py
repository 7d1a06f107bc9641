"""The entry point of extract_features: joins configuration, store and handler."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chassis.call import Handler
from chassis.server.asgi import as_function
from chassis.server.service import Service
from chassis.simulation import slow_handler
from chassis.telemetry.exposition import Exposition
from functions.extract_features.handler import ExtractFeatures
from functions.extract_features.opening import opened_store
from functions.extract_features.population import population_followed
from functions.extract_features.settings import Settings
from recsys.contracts.pages import pages_of

settings = Settings.from_env(os.environ)


@asynccontextmanager
async def open_function(exposition: Exposition) -> AsyncIterator[ExtractFeatures]:
    """
    Open the store, read from it once, add the metrics to *exposition*, and yield the handler.

    Raises:
        StartError: see `opened_store`.
    """
    async with opened_store(settings) as opened:
        handler = ExtractFeatures(
            opened.store,
            population=opened.population,
            history_limit=settings.history_limit,
            kinds=opened.declaration.events,
            reply_to_interactions=settings.reply_to_interactions,
        )
        exposition.add([*opened.store.instruments(), *handler.ingest.instruments()])
        async with population_followed(opened.store, handler.assume):
            yield handler


@asynccontextmanager
async def open_handler() -> AsyncIterator[Handler]:
    """Yield the handler, slowed down if the settings ask for it."""
    async with open_function(service.exposition) as handler:
        yield slow_handler(handler, settings.simulated_latency_s)


service = Service("extract-features", open_handler, settings=settings.serving, pages=pages_of("extract_features"))
handle = as_function(service)
