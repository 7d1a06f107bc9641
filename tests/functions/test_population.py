"""What is assumed of unknown users follows the store."""

import asyncio

import pytest

from functions.extract_features.population import first_population, population_followed
from recsys.contracts.wire import Features
from recsys.features import NOBODY
from recsys.stores.memory import MemoryStore
from recsys.stores.port import StoreUnavailableError

POPULATION = Features(age_group="unknown", avg_session_duration=60.0, total_purchases=1, engagement_score=0.5)


class Starting(MemoryStore):
    """Is away for the first *times* calls."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    async def population(self) -> Features | None:
        self.times -= 1
        if self.times >= 0:
            raise StoreUnavailableError("it starts")
        return await super().population()


async def test_a_store_that_starts_is_waited_for():
    """On a fresh cluster the store comes up beside the function, which is no reason to crash."""
    assert await first_population(Starting(3), again_s=0) == NOBODY


async def test_a_store_that_stays_away_is_an_error():
    """An instance that cannot be ready ends, and says why."""
    with pytest.raises(StoreUnavailableError):
        await first_population(Starting(10**9), within_s=0.01, again_s=0)


async def test_a_store_that_is_filled_later_is_followed():
    """Instances that started before the store was filled come to assume what the later ones do, through outages."""
    store, known = Starting(2), asyncio.Queue[Features]()
    await store.replace([], population=POPULATION)
    async with population_followed(store, known.put_nowait, every_s=0):
        assert await known.get() == POPULATION
    assert store.times < 0
