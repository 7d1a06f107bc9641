"""Read the defaults for unknown users from the store, at the start and regularly after it."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from chassis.background import repeating
from recstore.port import FeatureStore, StoreError, StoreUnavailableError
from recsys.contracts.wire import Features
from recsys.features import UNKNOWN_FEATURES

log = logging.getLogger("recsys.extract_features")

# Shorter than the 600 s that Knative gives a revision to become ready. The instance is alive but not ready until then.
START_WITHIN_S = 120.0
RETRY_S = 0.25
# After the store's content is replaced, instances may differ for this long.
REFRESH_S = 5.0


async def first_population(
    store: FeatureStore, *, within_s: float = START_WITHIN_S, again_s: float = RETRY_S
) -> Features:
    """
    Read the population, and wait for a *store* that is still starting, as on a new cluster.

    Raises:
        StoreError: the store did not answer for *within_s* seconds, or holds data that cannot be read.
    """
    said = ""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while True:
                try:
                    return _known(await store.population())
                except StoreUnavailableError as error:
                    if said != (said := str(error)):
                        log.warning("waiting_for_store", extra={"reason": said})
                await asyncio.sleep(again_s)
    return _known(await store.population())


def _known(population: Features | None) -> Features:
    """Return *population*, or the features of an unknown user if the store was never filled."""
    if population is None:
        log.warning("store_never_filled", extra={"consequence": "every user is unknown until the store is filled"})
    return population or UNKNOWN_FEATURES


@asynccontextmanager
async def population_followed(
    store: FeatureStore, assume: Callable[[Features], None], *, every_s: float = REFRESH_S
) -> AsyncIterator[None]:
    """Pass the population to *assume* every *every_s* seconds while the block runs, because the store may be filled later."""

    async def follow() -> None:
        await asyncio.sleep(every_s)
        with contextlib.suppress(StoreError):
            assume(await store.population() or UNKNOWN_FEATURES)

    async with repeating(follow):
        yield
