"""The entry point of extract_features: joins configuration, store and handler."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

from chassis.call import Handler
from chassis.server.asgi import as_function
from chassis.server.service import Service, StartError
from chassis.simulation import slow_handler
from chassis.telemetry.exposition import Exposition
from functions.extract_features.declared import follow_store
from functions.extract_features.handler import ExtractFeatures
from functions.extract_features.measured_store import MeasuredStore
from functions.extract_features.population import first_population, population_followed
from functions.extract_features.settings import Settings
from recsys.contracts.pages import pages_of
from recsys.declaration.reading import DeclarationError
from recsys.stores.port import StoreError
from recsys.stores.urls import open_store

settings = Settings.from_env(os.environ)


@asynccontextmanager
async def open_function(exposition: Exposition) -> AsyncIterator[ExtractFeatures]:
    """
    Open the store, read from it once, add the metrics to *exposition*, and yield the handler.

    Raises:
        StartError: the store does not exist, does not answer, cannot be read, or disagrees with the declaration.
    """
    async with AsyncExitStack() as parts:
        try:
            opened = open_store(
                settings.feature_store_url,
                password=settings.feature_store_password,
                window_s=settings.deduplication_s,
                ttl_s=settings.user_ttl_s,
            )
            store = await parts.enter_async_context(aclosing(MeasuredStore(opened)))
            population = await first_population(store)
            await store.read(["nobody"], history=1)
            declaration = await follow_store(store, settings.declaration)
        except (StoreError, DeclarationError) as error:
            raise StartError(str(error)) from error
        handler = ExtractFeatures(
            store,
            population=population,
            history_limit=settings.history_limit,
            kinds=declaration.events,
            reply_to_interactions=settings.reply_to_interactions,
        )
        exposition.add([*store.instruments(), *handler.ingest.instruments()])
        async with population_followed(store, handler.assume):
            yield handler


@asynccontextmanager
async def open_handler() -> AsyncIterator[Handler]:
    """Yield the handler, slowed down if the settings ask for it."""
    async with open_function(service.exposition) as handler:
        yield slow_handler(handler, settings.simulated_latency_s)


service = Service("extract-features", open_handler, settings=settings.serving, pages=pages_of("extract_features"))
handle = as_function(service)
