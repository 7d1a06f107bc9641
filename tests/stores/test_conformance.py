"""One suite for every feature store: what holds for one holds for all."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from recsys.contracts.wire import Features
from recsys.features import NOBODY
from recsys.stores.memory import MemoryStore
from recsys.stores.port import FeatureStore, HistoryItem, UserRecord
from recsys.stores.sqlite import SqliteStore

POPULATION = Features(age_group="unknown", avg_session_duration=61.5, total_purchases=2, engagement_score=0.25)

ANN = UserRecord(
    "ann",
    "25-34",
    views=3,
    clicks=2,
    purchases=1,
    sessions=2,
    session_ms=61_500,
    as_of_us=1_700_000_000_000_001,
    history=[HistoryItem("c", 1.5, 300), HistoryItem("a", 2.0, 200), HistoryItem("b", 1.0, 200)],
)
BOB = UserRecord("bob", "unknown")
ODD = UserRecord("Ω'; DROP TABLE users; --\x7f", "55+", views=1, history=[HistoryItem('"quoted"', 1.0, 1)])


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FeatureStore]:
    opened: FeatureStore = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "store.db")
    asyncio.run(opened.replace([BOB, ANN, ODD], population=POPULATION))
    yield opened
    asyncio.run(opened.aclose())


async def test_what_was_stored_is_read(store):
    """A record comes back as it went in, history newest first, ties by item id."""
    assert await store.read(["ann"], history=10) == [ANN]


async def test_many_are_read_in_the_order_asked(store):
    """Unknown users are None, repeated ones are repeated."""
    assert await store.read(["bob", "nobody", "ann", "bob"], history=10) == [BOB, None, ANN, BOB]


async def test_ids_are_data(store):
    """Quotes, other scripts and SQL in ids mean nothing to a store."""
    assert await store.read([ODD.user_id, "ann"], history=10) == [ODD, ANN]


async def test_nobody_is_asked_for(store):
    """Reading no users gives no records."""
    assert await store.read([], history=10) == []


async def test_history_is_cut_to_the_newest(store):
    """The limit keeps the newest items and leaves the counters alone."""
    (ann,) = await store.read(["ann"], history=2)
    assert [item.item_id for item in ann.history] == ["c", "a"]
    assert ann.views == 3


async def test_population_is_kept(store):
    """The defaults for unknown users are what the last replacement said."""
    assert await store.population() == POPULATION


async def test_replacing_replaces_everything(store):
    """After a replacement nothing of before is left."""
    assert await store.replace([BOB], population=NOBODY) == 1
    assert await store.read(["ann", "bob"], history=10) == [None, BOB]
    assert await store.population() == NOBODY


async def test_a_failing_replacement_changes_nothing(store):
    """When the source of records fails half-way, the content stays as it was."""

    def broken() -> Iterator[UserRecord]:
        yield BOB
        raise ConnectionError("the source went away")

    with pytest.raises(ConnectionError):
        await store.replace(broken(), population=NOBODY)
    assert await store.read(["ann", "bob"], history=10) == [ANN, BOB]
    assert await store.population() == POPULATION


async def test_scanning_yields_everything_by_user_id(store):
    """A scan gives every record with its whole history, in the order of ids."""
    assert list(store.scan()) == [ANN, BOB, ODD]


async def test_closing_twice_is_allowed(store):
    """A store that is closed can be closed again."""
    await store.aclose()
    await store.aclose()
