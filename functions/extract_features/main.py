"""The entry point of extract_features: joins configuration, store and handler."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

from chassis.server.asgi import as_function
from chassis.server.service import Service, StartError
from chassis.telemetry.exposition import Exposition
from functions.extract_features.handler import ExtractFeatures
from functions.extract_features.measured_store import MeasuredStore
from functions.extract_features.population import first_population, population_followed
from functions.extract_features.settings import Settings
from recsys.catalogue.urls import open_catalogue
from recsys.contracts.pages import pages_of
from recsys.stores.port import StoreError
from recsys.stores.urls import open_store

settings = Settings.from_env(os.environ)


@asynccontextmanager
async def open_handler(exposition: Exposition | None = None) -> AsyncIterator[ExtractFeatures]:
    """
    Open the store, read from it once, and yield the handler; add its metrics to *exposition*, or to the service's.

    Raises:
        StartError: the store does not exist, does not answer, or cannot be read.
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
            catalogue = open_catalogue(settings.feature_store_url, password=settings.feature_store_password)
            await parts.enter_async_context(aclosing(catalogue))
        except StoreError as error:
            raise StartError(str(error)) from error
        handler = ExtractFeatures(
            store,
            population=population,
            history_limit=settings.history_limit,
            reply_to_interactions=settings.reply_to_interactions,
            simulated_latency_s=settings.simulated_latency_s,
            catalogue=catalogue,
        )
        (exposition or service.exposition).add([*store.instruments(), *handler.ingest.instruments()])
        async with population_followed(store, handler.assume):
            yield handler


service = Service("extract-features", open_handler, settings=settings.serving, pages=pages_of("extract_features"))
handle = as_function(service)
