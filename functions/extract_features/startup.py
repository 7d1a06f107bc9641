"""Open the feature store, and find the declaration that its records follow."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass

from chassis.server.service import StartError
from functions.extract_features.exposures import Exposures
from functions.extract_features.population import first_population
from functions.extract_features.settings import Settings
from recstore.catalogue.entries import Catalogue
from recstore.catalogue.urls import open_catalogue
from recstore.exposures.urls import open_exposures
from recstore.port import FeatureStore, StoreError
from recstore.urls import open_store
from recsys.contracts.wire import Features
from recsys.declaration.agreement import agree
from recsys.declaration.reader import DeclarationError
from recsys.declaration.types import Declaration


@dataclass(frozen=True)
class OpenedStore:
    """
    A feature store that was read from once, its catalogue, and the declaration to follow.

    Attributes:
        store: The store.
        catalogue: The changes of items, in the same place as the store.
        population: The defaults for unknown users.
        declaration: The declaration that the records follow.
        exposures: Keeps exposures; None if they are off.
    """

    store: FeatureStore
    catalogue: Catalogue
    population: Features
    declaration: Declaration
    exposures: Exposures | None


@asynccontextmanager
async def opened_store(settings: Settings) -> AsyncIterator[OpenedStore]:
    """
    Open the store of *settings*, and close it at the end of the block.

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
            store = await parts.enter_async_context(aclosing(opened))
            population = await first_population(store)
            await store.read(["nobody"], history=1)
            declaration = await follow_store(store, settings.declaration)
            catalogue = open_catalogue(settings.feature_store_url, password=settings.feature_store_password)
            await parts.enter_async_context(aclosing(catalogue))
            exposures = await parts.enter_async_context(_opened_exposures(settings))
        except (StoreError, DeclarationError) as error:
            raise StartError(str(error)) from error
        yield OpenedStore(store, catalogue, population, declaration, exposures)


@asynccontextmanager
async def _opened_exposures(settings: Settings) -> AsyncIterator[Exposures | None]:
    if not settings.exposures:
        yield None
        return
    limits = settings.exposures
    log = open_exposures(
        settings.feature_store_url,
        password=settings.feature_store_password,
        retention_s=limits.retention_s,
        most_per_user=limits.most_per_user,
    )
    async with aclosing(log):
        yield Exposures(log)


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
