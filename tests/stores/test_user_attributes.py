"""Attributes of users in feature stores: the newest value counts, and erasures, copies and old files respect them."""

import random
import sqlite3
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from redis import Redis

from recstore.erasures import Erasure, Removed, digest_user
from recstore.port import EventOutcome, FeatureStore, StoreUnavailableError
from recstore.redis import RedisStore
from recstore.sqlite import SqliteStore
from recstore.urls import open_store
from recsys.features import UNKNOWN_FEATURES
from recsys.records import HistoryItem, KnownUser, UserAttribute, UserRecord, UserUpdate, imported
from tests.stores.conftest import Opener
from tests.stores.test_conformance import interaction, scan_all
from tests.waiting import LIMIT_S
from tools.bench.redis_server import RedisServer
from tools.store import copy_store

NEW, SAME, ERASED = EventOutcome.ACCEPTED, EventOutcome.REPEATED, EventOutcome.ERASED
NOW_US = 1_800_000_000_000_001
HISTORY = [HistoryItem("a", 1.0, 300)]
ANN = UserRecord("ann", "25-34", views=2, attributes=imported({"city": ["Bern"], "plan": ["free"]}), history=HISTORY)
BOB = UserRecord("bob", "unknown", history=HISTORY)


@pytest.fixture
async def store(opener: Opener) -> AsyncIterator[FeatureStore]:
    async with aclosing(opener()) as opened:
        await opened.replace([ANN, BOB], population=UNKNOWN_FEATURES)
        yield opened


def update(user_id: str = "ann", *, at_us: int = NOW_US, **values: list[str]) -> UserUpdate:
    return UserUpdate(user_id, at_us, {name: tuple(each) for name, each in values.items()})


async def read(store: FeatureStore, user_id: str = "ann") -> KnownUser:
    (known,) = await store.read([user_id], history=10)
    assert known is not None
    return known


async def test_imported_attributes_are_stored(store):
    """Requests and scans get the attributes of an import."""
    assert await store.read(["ann", "bob"], history=10) == [ANN.known(history=10), BOB.known(history=10)]
    assert await scan_all(store) == [ANN, BOB]
    assert (await read(store)).user_attributes == {"city": ["Bern"], "plan": ["free"]}


async def test_an_update_changes_the_attributes_that_it_names(store):
    """Other attributes, counters and the history stay; an attribute without a value is removed."""
    assert await store.update([update(city=["Genf", "Ω'\""], plan=[], size=["M"])]) == [NEW]
    ann = await read(store)
    assert ann.user_attributes == {"city": ["Genf", "Ω'\""], "size": ["M"]}
    assert (ann.views, ann.recent, ann.age_group) == (2, ["a"], "25-34")
    assert (await scan_all(store))[0].history == HISTORY


async def test_an_update_adds_an_unknown_user(store):
    """The user has no interactions; a later one keeps the attributes."""
    assert await store.update([update("zoe", city=["Genf"])]) == [NEW]
    zoe = await read(store, "zoe")
    assert (zoe.age_group, zoe.as_of_us, zoe.recent) == ("unknown", None, [])
    await store.apply([interaction(1)])
    zoe = await read(store, "zoe")
    assert (zoe.views, zoe.user_attributes) == (1, {"city": ["Genf"]})


async def test_the_age_group_can_be_updated(store):
    """The new group keeps its place, and is not among the attributes; without a value the group is unknown."""
    assert await store.update([update(age_group=["55+"])]) == [NEW]
    ann = await read(store)
    assert (ann.age_group, ann.user_attributes) == ("55+", ANN.user_attributes)
    assert await store.update([update(age_group=["18-24"], at_us=NOW_US - 1)]) == [SAME]
    assert await store.update([update(age_group=[], at_us=NOW_US + 1)]) == [NEW]
    assert (await read(store)).age_group == "unknown"
    assert (await scan_all(store))[0].age_group == "unknown"


async def test_repeated_and_older_updates_change_nothing(store):
    """An update that arrives after a newer one of the same attribute changes only other attributes."""
    newer = update(city=["Genf"])
    assert await store.update([newer, newer, update(city=["Rom"], at_us=NOW_US - 1)]) == [NEW, SAME, SAME]
    assert await store.update([update(city=["Rom"], plan=["paid"], at_us=NOW_US - 1)]) == [NEW]
    assert (await read(store)).user_attributes == {"city": ["Genf"], "plan": ["paid"]}


async def test_an_older_update_does_not_restore_a_removed_value(store):
    """The store keeps the time of a removal."""
    assert await store.update([update(city=[]), update(city=["Rom"], at_us=NOW_US - 1)]) == [NEW, SAME]
    assert "city" not in (await read(store)).user_attributes


async def test_order_and_grouping_of_updates_do_not_matter(opener):
    """The same updates, shuffled, repeated and split differently, give the same state, also of equal times."""
    draw = random.Random(3)
    updates = [
        update(
            draw.choice("ab"),
            at_us=draw.randint(1, 9),
            **{draw.choice(["city", "plan", "age_group"]): draw.choice([["x"], ["y", "z"], [], ["55+"]])},
        )
        for _ in range(60)
    ]
    states = []
    for size in (1, 7, 200):
        store = opener()
        await store.replace([], population=UNKNOWN_FEATURES)
        shuffled = draw.sample(updates * 2, 120)
        for start in range(0, 120, size):
            await store.update(shuffled[start : start + size])
        states.append(await scan_all(store))
        await store.aclose()
    assert states[0] == states[1] == states[2]
    assert [record.user_id for record in states[0]] == ["a", "b"]


async def test_updates_do_not_bring_an_erased_user_back(store):
    """An erasure removes attributes, and later updates are refused, except after a readmission."""
    await store.update([update(city=["Genf"])])
    assert await store.erase("ann", at_us=NOW_US) == Removed(users=1, items=1)
    told = await store.update([update(city=["Rom"], at_us=2 * NOW_US), update("bob", city=["Rom"])])
    assert told == [ERASED, NEW]
    assert await store.read(["ann"], history=1) == [None]
    await store.adopt([Erasure(digest_user("ann"), NOW_US + 10, readmitted=True)])
    told = await store.update([update(city=["Rom"], at_us=NOW_US + 9), update(plan=["paid"], at_us=NOW_US + 10)])
    assert told == [ERASED, NEW]
    assert (await read(store)).user_attributes == {"plan": ["paid"]}


async def test_a_closed_store_takes_no_updates(store):
    """The caller learns that the store is unavailable."""
    await store.aclose()
    with pytest.raises(StoreUnavailableError):
        await store.update([update(city=["Genf"])])


async def test_updates_of_one_instance_reach_the_others(shared_opener):
    """Another instance reads the values immediately, also after a replacement."""
    async with aclosing(shared_opener()) as one, aclosing(shared_opener()) as other:
        await other.replace([BOB], population=UNKNOWN_FEATURES)
        await one.update([update(city=["Genf"])])
        assert (await read(other)).user_attributes == {"city": ["Genf"]}
        await one.replace([ANN], population=UNKNOWN_FEATURES)
        await other.update([update(city=["Rom"])])
        assert (await read(one)).user_attributes == {"city": ["Rom"], "plan": ["free"]}


async def test_a_copy_preserves_values_and_times(tmp_path, redis_server: RedisServer):
    """A copy to Redis and back gives the same records, removed values included."""
    redis_server.flush()
    first, second = f"sqlite:///{tmp_path}/one.db", f"sqlite:///{tmp_path}/two.db"
    async with aclosing(open_store(first, create=True)) as source:
        await source.replace([ANN, BOB], population=UNKNOWN_FEATURES)
        await source.update([update(plan=[], age_group=["55+"])])
        records = await scan_all(source)
    assert records[0].attributes == (
        UserAttribute("age_group", NOW_US, ("55+",)),
        UserAttribute("city", 0, ("Bern",)),
        UserAttribute("plan", NOW_US, ()),
    )
    await copy_store(first, redis_server.url)
    await copy_store(redis_server.url, second)
    async with aclosing(open_store(second)) as target:
        assert await scan_all(target) == records


async def test_an_update_renews_the_time_to_live(redis_server: RedisServer):
    """A user of Redis whose attributes change is as active as one with an interaction."""
    redis_server.flush()
    async with aclosing(RedisStore(redis_server.url, ttl_s=1000)) as store:
        await store.update([update(city=["Genf"])])
        await store.apply([interaction(1, user_id="ann")])
        key = f"recsys:0:{{{digest_user('ann')}}}"
        with Redis(port=redis_server.port) as client:
            for part in ("u", "t", "w"):
                client.expire(f"{key}:{part}", 10)
            await store.update([update(city=["Rom"], at_us=NOW_US + 1)])
            assert [client.ttl(f"{key}:{part}") for part in ("u", "t", "w")] == [pytest.approx(1000, abs=LIMIT_S)] * 3


async def test_a_file_of_version_3_is_taken_over(tmp_path):
    """A file of the tables without attributes keeps its users, marks and erasures, and takes attributes."""
    path = tmp_path / "store.db"
    async with aclosing(SqliteStore(path, create=True)) as store:
        await store.replace([BOB], population=UNKNOWN_FEATURES)
        await store.apply([interaction(1, user_id="bob")])
        await store.erase("eve", at_us=NOW_US)
    with sqlite3.connect(path, isolation_level=None) as old:
        old.executescript("ALTER TABLE users DROP COLUMN attributes; PRAGMA user_version = 3;")
    old.close()
    async with aclosing(SqliteStore(path)) as store:
        assert await store.apply([interaction(1, user_id="bob")]) == [SAME]
        assert await store.update([update("bob", city=["Rom"]), update("eve", city=["Rom"])]) == [NEW, ERASED]
    async with aclosing(SqliteStore(path)) as store:
        (bob,) = await scan_all(store)
        assert (bob.views, bob.user_attributes) == (1, {"city": ["Rom"]})
