"""Erasing users from feature stores: every store removes them, refuses late events, and keeps erasures."""

import asyncio
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
from recsys.records import HistoryItem, Interaction, UserRecord
from tests.files import content
from tests.stores.conftest import Opener, make_opener
from tests.stores.test_conformance import interaction, scan_all
from tests.waiting import LIMIT_S
from tools.store import copy_store

ANN = UserRecord("ann", "25-34", views=2, history=[HistoryItem("a", 1.0, 300), HistoryItem("b", 1.0, 200)])
BOB = UserRecord("bob", "unknown", history=[HistoryItem("a", 1.0, 300)])
ERASED_US = 1_800_000_000_000_000


@pytest.fixture
async def store(opener: Opener) -> AsyncIterator[FeatureStore]:
    async with aclosing(opener()) as opened:
        await opened.replace([ANN, BOB], population=UNKNOWN_FEATURES)
        yield opened


def act(number: int, user_id: str = "ann", *, time_us: int = ERASED_US) -> Interaction:
    return interaction(number, user_id=user_id, time_us=time_us)


async def test_an_erasure_removes_profile_history_and_marks(store):
    """The receipt counts what was removed; a second erasure finds nothing, and other users stay."""
    await store.apply([act(1), act(2), act(1, "bob")])
    assert await store.erase("ann", at_us=ERASED_US) == Removed(users=1, items=4, events=2)
    assert await store.read(["ann"], history=10) == [None]
    assert [record.user_id for record in await scan_all(store)] == ["bob"]
    assert await store.erase("ann", at_us=ERASED_US) == Removed()
    assert await store.apply([act(1, "bob")]) == [EventOutcome.REPEATED]


async def test_events_do_not_bring_an_erased_user_back(store):
    """New, repeated and later events of the user are refused, and events of others in the same call are counted."""
    await store.apply([act(1)])
    await store.erase("ann", at_us=ERASED_US)
    told = await store.apply([act(1), act(2), act(3, time_us=2 * ERASED_US), act(4, "bob")])
    assert told == [EventOutcome.ERASED] * 3 + [EventOutcome.ACCEPTED]
    assert await store.read(["ann"], history=10) == [None]
    assert await store.erase("ann", at_us=ERASED_US) == Removed()


async def test_an_unknown_user_can_be_erased(store):
    """The erasure of a user without data removes nothing and refuses later events."""
    assert await store.erase("eve", at_us=ERASED_US) == Removed()
    assert await store.apply([act(1, "eve")]) == [EventOutcome.ERASED]


async def test_a_replacement_keeps_erasures_and_leaves_out_their_users(store):
    """An import that holds an erased user does not bring the user back."""
    await store.erase("ann", at_us=ERASED_US)
    assert await store.replace([ANN, BOB], population=UNKNOWN_FEATURES) == 1
    assert await scan_all(store) == [BOB]
    assert await store.apply([act(1)]) == [EventOutcome.ERASED]
    assert await store.erasures() == [Erasure(digest_user("ann"), ERASED_US)]


async def test_a_readmitted_user_starts_without_the_past(store):
    """After a readmission, later actions are counted, and events about earlier actions are still refused."""
    await store.apply([act(1)])
    await store.erase("ann", at_us=ERASED_US)
    await store.adopt([Erasure(digest_user("ann"), ERASED_US + 10, readmitted=True)])
    told = await store.apply([act(1), act(2, time_us=ERASED_US + 9), act(3, time_us=ERASED_US + 10)])
    assert told == [EventOutcome.ERASED, EventOutcome.ERASED, EventOutcome.ACCEPTED]
    (ann,) = [record for record in await scan_all(store) if record.user_id == "ann"]
    assert (ann.views, [item.item_id for item in ann.history]) == (1, ["item_3"])
    assert await store.replace([ANN, BOB], population=UNKNOWN_FEATURES) == 2


async def test_the_newest_of_erasure_and_readmission_counts(store):
    """A repeated delivery of an erasure does not erase a user who was readmitted after it; a new erasure does."""
    await store.erase("ann", at_us=ERASED_US)
    await store.adopt([Erasure(digest_user("ann"), ERASED_US + 10, readmitted=True)])
    await store.apply([act(1, time_us=ERASED_US + 20)])
    assert await store.erase("ann", at_us=ERASED_US) == Removed()
    assert await store.read(["ann"], history=10) != [None]
    assert await store.erase("ann", at_us=ERASED_US + 30) == Removed(users=1, items=1, events=1)
    assert await store.erasures() == [Erasure(digest_user("ann"), ERASED_US + 30)]


async def test_adopted_erasures_remove_users_by_digest(store):
    """A store that takes over erasures removes the users that it holds; older erasures change nothing."""
    await store.apply([act(1), act(2, "carl")])
    erasures = [Erasure(digest_user(user), ERASED_US) for user in ("ann", "carl", "stranger")]
    assert await store.adopt(erasures) == Removed(users=2, items=4, events=2)
    assert await scan_all(store) == [BOB]
    assert await store.adopt([Erasure(digest_user("ann"), ERASED_US - 1, readmitted=True)]) == Removed()
    assert sorted(await store.erasures(), key=str) == sorted(erasures, key=str)


async def test_a_closed_store_erases_nobody(store):
    """Every call about erasures of a closed store is refused."""
    await store.aclose()
    if type(store).__name__ != "MemoryStore":
        with pytest.raises(StoreUnavailableError):
            await store.scrub()
    for ask in (lambda: store.erase("ann", at_us=1), store.erasures, lambda: store.adopt([Erasure("00" * 32, 1)])):
        with pytest.raises(StoreUnavailableError):
            await ask()


async def test_an_erasure_reaches_writes_of_other_instances(shared_opener):
    """While other instances count events of the user, no event that ends after the erasure leaves anything."""
    async with aclosing(shared_opener()) as one, aclosing(shared_opener()) as other:
        await one.replace([ANN, BOB], population=UNKNOWN_FEATURES)
        writes = [asyncio.create_task(other.apply([act(n), act(n, "bob")])) for n in range(40)]
        await asyncio.wait(writes[:3], return_when=asyncio.FIRST_COMPLETED)
        await one.erase("ann", at_us=ERASED_US)
        told = [await write for write in writes]
        assert [bob for _, bob in told] == [EventOutcome.ACCEPTED] * 40
        assert {ann for ann, _ in told} <= {EventOutcome.ACCEPTED, EventOutcome.ERASED}
        for reader in (one, other):
            assert await reader.read(["ann"], history=10) == [None]
        assert await other.erase("ann", at_us=ERASED_US) == Removed()


async def test_an_erasure_during_a_replacement_holds(shared_opener):
    """A user who is erased while another instance fills the store is not in the new content."""
    users = [UserRecord(f"u{number:04}", "55+", history=[HistoryItem("a", 1.0, 1)]) for number in range(1000)]
    async with aclosing(shared_opener()) as one, aclosing(shared_opener()) as other:
        replacing = asyncio.create_task(one.replace(users, population=UNKNOWN_FEATURES))
        erased = 0
        async with asyncio.timeout(LIMIT_S):
            while not replacing.done():
                await other.erase(f"u{erased:04}", at_us=ERASED_US)
                erased += 1
                await asyncio.sleep(0)
        await replacing
        left = {record.user_id for record in await scan_all(other)}
        assert left == {user.user_id for user in users[erased:]}


async def test_a_copy_carries_erasures(tmp_path, redis_server):
    """A copy holds the erasures of its source, keeps those of the target, and holds none of their users."""
    redis_server.flush()
    source, target = f"sqlite:///{tmp_path}/a.db", redis_server.url
    async with aclosing(open_store(source, create=True)) as one, aclosing(open_store(target)) as other:
        await one.replace([ANN, BOB, UserRecord("carl", "55+")], population=UNKNOWN_FEATURES)
        await one.erase("ann", at_us=ERASED_US)
        await other.erase("bob", at_us=ERASED_US)
        await copy_store(source, target)
        assert [record.user_id for record in await scan_all(other)] == ["carl"]
        assert {each.user for each in await other.erasures()} == {digest_user("ann"), digest_user("bob")}
        await copy_store(target, source)
        assert [record.user_id for record in await scan_all(one)] == ["carl"]


async def test_no_byte_of_the_user_is_left_in_the_files_of_sqlite(tmp_path):
    """After `scrub`, neither the file nor the log holds ids of the user, also of rows that were moved or replaced."""
    history = [HistoryItem(f"i{k}", 1.0, k) for k in range(9)]
    users = [UserRecord(f"someone-{n:03}", "55+", history=history) for n in range(300)]
    gone = [f"someone-{n:03}".encode() for n in (7, 123, 299)]

    async with aclosing(SqliteStore(tmp_path / "store.db", create=True)) as store:
        for _ in range(2):
            await store.replace(users, population=UNKNOWN_FEATURES)
        for n in range(20):
            await store.apply([act(1000 * n + k, f"someone-{k:03}", time_us=n) for k in range(300)])
        assert await store.is_scrubbed()
        assert all(user in content(tmp_path) for user in gone)
        for user in gone:
            await store.erase(user.decode(), at_us=ERASED_US)
        assert not await store.is_scrubbed()
        await store.scrub()
        assert await store.is_scrubbed()
        assert not any(user in content(tmp_path) for user in gone)
        assert b"someone-124" in content(tmp_path)


async def test_no_key_of_redis_names_the_user(redis_server):
    """Neither keys nor values of an erased user are left, in any generation."""
    redis_server.flush()
    async with aclosing(RedisStore(redis_server.url)) as store, aclosing(RedisStore(redis_server.url)) as late:
        await late.read(["ann"], history=1)
        await store.replace([BOB], population=UNKNOWN_FEATURES)
        # The store *late* writes to the generation it knows before it notices the new one.
        await late.apply([act(1)])
        await store.erase("ann", at_us=ERASED_US)
        await store.scrub()
    with Redis(port=redis_server.port) as client:
        keys = [key.decode() for key in client.keys("*")]
        assert [key for key in keys if digest_user("ann") in key] == [f"recsys:erased:{{{digest_user('ann')}}}"]
        assert not any("ann" in key for key in keys)


async def test_a_store_of_version_1_is_taken_over(tmp_path):
    """A file of the former tables keeps its users; the marks of events, which name no user, are dropped."""
    path = tmp_path / "store.db"
    async with aclosing(SqliteStore(path, create=True)) as store:
        await store.replace([ANN], population=UNKNOWN_FEATURES)
    with sqlite3.connect(path, isolation_level=None) as old:
        old.executescript("""
            DROP TABLE events; DROP TABLE erasures; DROP TABLE items;
            DROP TABLE exposures; DROP TABLE actions; ALTER TABLE users DROP COLUMN attributes;
            PRAGMA user_version = 1;
            CREATE TABLE events (source TEXT NOT NULL, event_id TEXT NOT NULL, seen_us INTEGER NOT NULL,
                PRIMARY KEY (source, event_id)) STRICT, WITHOUT ROWID;
            CREATE INDEX events_oldest ON events (seen_us);
            INSERT INTO events VALUES ('//shop', '1', 5);
        """)
    old.close()
    async with aclosing(SqliteStore(path)) as store:
        assert await scan_all(store) == [ANN]
        assert await store.apply([act(1)]) == [EventOutcome.ACCEPTED]
        await store.erase("ann", at_us=ERASED_US)
    async with aclosing(SqliteStore(path)) as store:
        assert await scan_all(store) == []


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_an_erasure_survives_the_end_of_the_process(kind, request, tmp_path):
    """The erasure is durable when the call returns."""
    opener = make_opener(kind, request, tmp_path)
    async with aclosing(opener()) as store:
        await store.replace([ANN], population=UNKNOWN_FEATURES)
        await store.erase("ann", at_us=ERASED_US)
    async with aclosing(opener()) as store:
        assert await store.apply([act(1)]) == [EventOutcome.ERASED]


async def test_an_instance_that_was_just_opened_counts_what_it_removes(shared_opener):
    """The numbers of an erasure are complete even if it is the first call, as of `./run.sh users erase`."""
    async with aclosing(shared_opener()) as store:
        await store.replace([ANN], population=UNKNOWN_FEATURES)
    async with aclosing(shared_opener()) as store:
        assert (await store.erase("ann", at_us=ERASED_US)).users == 1
