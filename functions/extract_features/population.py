"""What to assume of users the store does not know, as the store has it: at the start, and from then on."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from recsys.contracts.wire import Features
from recsys.features import NOBODY
from recsys.stores.port import FeatureStore, StoreError, StoreUnavailableError

log = logging.getLogger("recsys.extract_features")

# Less than Knative gives a revision to become ready (600 s); meanwhile the instance is alive and not ready.
START_WITHIN_S = 120.0
AGAIN_S = 0.25
# So long may instances differ after the store's content was exchanged.
REFRESH_S = 5.0


async def first_population(
    store: FeatureStore, *, within_s: float = START_WITHIN_S, again_s: float = AGAIN_S
) -> Features:
    """
    Read the population of a *store* that may be starting itself, as everything does on a fresh cluster.

    Raises:
        StoreError: the store was away all that time, or is not one of ours.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while True:
                with contextlib.suppress(StoreUnavailableError):
                    return _known(await store.population())
                await asyncio.sleep(again_s)
    return _known(await store.population())


def _known(population: Features | None) -> Features:
    """Return *population*, or what to assume without one: a store that is never filled knows events alone."""
    if population is None:
        log.warning("store_never_filled", extra={"consequence": "every user is unknown until the store is filled"})
    return population or NOBODY


@asynccontextmanager
async def population_followed(
    store: FeatureStore, assume: Callable[[Features], None], *, every_s: float = REFRESH_S
) -> AsyncIterator[None]:
    """Hand the population to *assume* again and again while the block runs: the store may be filled meanwhile."""

    async def follow() -> None:
        while True:
            await asyncio.sleep(every_s)
            with contextlib.suppress(StoreError):
                assume(await store.population() or NOBODY)

    task = asyncio.create_task(follow())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
