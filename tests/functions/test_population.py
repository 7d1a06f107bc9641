"""The defaults for unknown users follow the store."""

import asyncio

import pytest

from functions.extract_features.population import first_population, population_followed
from recstore.memory import MemoryStore
from recstore.port import StoreUnavailableError
from recsys.contracts.wire import Features
from recsys.features import UNKNOWN_FEATURES

POPULATION = Features(age_group="unknown", avg_session_duration=60.0, total_purchases=1, engagement_score=0.5)


class StartingStore(MemoryStore):
    """A store that is unavailable for the first *times* calls."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    async def population(self) -> Features | None:
        self.times -= 1
        if self.times >= 0:
            raise StoreUnavailableError("it starts")
        return await super().population()


async def test_a_starting_store_is_waited_for(caplog):
    """The function waits for a store that starts at the same time, as on a fresh cluster, and logs the reason once."""
    assert await first_population(StartingStore(3), again_s=0) == UNKNOWN_FEATURES
    assert [each.reason for each in caplog.records if each.message == "waiting_for_store"] == ["it starts"]


async def test_an_unavailable_store_is_an_error():
    """An instance that cannot reach its store in time ends with an error."""
    with pytest.raises(StoreUnavailableError):
        await first_population(StartingStore(10**9), within_s=0.01, again_s=0)


async def test_population_defaults_follow_the_store():
    """An instance that started before the store was filled adopts the new defaults, also after an outage."""
    store, known = StartingStore(2), asyncio.Queue[Features]()
    await store.replace([], population=POPULATION)
    async with population_followed(store, known.put_nowait, every_s=0):
        assert await known.get() == POPULATION
    assert store.times < 0
