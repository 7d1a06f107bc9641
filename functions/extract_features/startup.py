"""Open the handler of extract_features: its stores, and the parts that run in the background."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

from chassis.server.service import StartError
from chassis.telemetry.exposition import Exposition
from functions.extract_features.exposures import Exposures
from functions.extract_features.handler import ExtractFeatures
from functions.extract_features.population import first_population, population_followed
from functions.extract_features.settings import Settings
from recstore.catalogue.urls import open_catalogue
from recstore.exposures.urls import open_exposures
from recstore.port import FeatureStore, StoreError
from recstore.urls import open_store
from recsys.declaration.agreement import agree
from recsys.declaration.reader import DeclarationError
from recsys.declaration.types import Declaration


@asynccontextmanager
async def opened_handler(settings: Settings, *, exposition: Exposition) -> AsyncIterator[ExtractFeatures]:
    """
    Open the store of *settings*, read from it once, and run the parts in the background until the block ends.

    Adds metrics to *exposition*.

    Raises:
        StartError: the store does not exist, does not answer, cannot be read, or disagrees with the declaration.
    """
    url, password = settings.feature_store_url, settings.feature_store_password
    async with AsyncExitStack() as parts:
        try:
            opened = open_store(url, password=password, window_s=settings.deduplication_s, ttl_s=settings.user_ttl_s)
            store = await parts.enter_async_context(aclosing(opened))
            population = await first_population(store)
            await store.read(["nobody"], history=1)
            declaration = await follow_store(store, settings.declaration)
            catalogue = await parts.enter_async_context(aclosing(open_catalogue(url, password=password)))
            exposures = None
            if limits := settings.exposures:
                log = open_exposures(
                    url, password=password, retention_s=limits.retention_s, most_per_user=limits.most_per_user
                )
                exposures = Exposures(await parts.enter_async_context(aclosing(log)))
        except (StoreError, DeclarationError) as error:
            raise StartError(str(error)) from error
        handler = ExtractFeatures(
            store,
            population=population,
            history_limit=settings.history_limit,
            declaration=declaration,
            reply_to_interactions=settings.reply_to_interactions,
            simulated_latency_s=settings.simulated_latency_s,
            catalogue=catalogue,
            exposures=exposures,
        )
        exposition.add([*handler.ingest.instruments(), *(exposures.instruments() if exposures else ())])
        await parts.enter_async_context(population_followed(store, handler.assume))
        await parts.enter_async_context(handler.ingest.scrubber.running())
        yield handler


async def follow_store(store: FeatureStore, given: Declaration | None) -> Declaration:
    """
    Return the declaration of *store*, or the one *given* by the setting if the store was never filled.

    Raises:
        DeclarationError: the two differ.
        StoreError: the store cannot be read.
    """
    if given and await store.population() is None:
        return given
    return agree(given, await store.declaration(), holder="the feature store")
