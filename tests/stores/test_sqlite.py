import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest

from recstore.memory import MemoryStore
from recstore.port import EventOutcome, StoreFormatError, StoreUnavailableError
from recstore.sqlite import SqliteStore
from recstore.sqlite_file import SCHEMA_VERSION
from recstore.urls import open_store
from recsys.features import UNKNOWN_FEATURES
from recsys.records import HistoryItem, Interaction, UserRecord

NEW = EventOutcome.ACCEPTED
ANN = UserRecord("ann", "25-34", history=[HistoryItem("a", 1.0, 1)])


async def test_data_outlives_the_store_object(tmp_path):
    """A second store on the same file reads what the first one stored, while both are open."""
    first = SqliteStore(tmp_path / "store.db", create=True)
    await first.replace([ANN], population=UNKNOWN_FEATURES)
    second = SqliteStore(tmp_path / "store.db", create=True)
    assert await second.read(["ann"], history=5) == [ANN.known(history=5)]


async def test_reads_of_one_turn_share_a_snapshot(tmp_path):
    """Reads within one turn of the loop agree with each other; the next turn sees the writes of every process."""
    store, other = SqliteStore(tmp_path / "store.db", create=True), SqliteStore(tmp_path / "store.db", create=True)
    await store.replace([ANN], population=UNKNOWN_FEATURES)
    elsewhere = sqlite3.connect(tmp_path / "store.db", isolation_level=None)

    async def read(store: SqliteStore) -> int:
        (known,) = await store.read(["ann"], history=5)
        assert known is not None
        return known.views

    before = await read(store)
    elsewhere.execute("UPDATE users SET views = views + 1")
    within = await read(store), await read(other)
    await asyncio.sleep(0)
    assert (before, within, await read(store)) == (0, (0, 1), 1)
    view = Interaction("/test", "1", "ann", "view", 1_800_000_000_000_000, "b")
    first, new, second = await asyncio.gather(read(store), store.apply([view]), read(store))
    assert (first, new, second) == (1, [NEW], 1)
    assert (await read(store), await read(other)) == (2, 2)


async def test_a_store_can_be_closed_during_a_turn(tmp_path):
    """The end of a read does nothing when the store has been closed."""
    faults: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: faults.append(context))
    store = SqliteStore(tmp_path / "store.db", create=True)
    await store.read(["ann"], history=5)
    store._reader.close()
    await asyncio.sleep(0)
    assert faults == []
    await store.aclose()


@pytest.mark.may_block
def test_a_store_survives_the_end_of_an_event_loop(tmp_path):
    """A loop that stops in the middle of a turn does not leave its snapshot to the next loop."""
    store = SqliteStore(tmp_path / "store.db", create=True)
    loop = asyncio.new_event_loop()

    async def read_and_stop() -> None:
        assert await store.read(["ann"], history=5) == [None]
        loop.stop()

    reading = loop.create_task(read_and_stop())
    loop.run_forever()
    assert reading.done()
    loop.close()
    other = SqliteStore(tmp_path / "store.db", create=True)
    asyncio.run(other.replace([ANN], population=UNKNOWN_FEATURES))
    assert asyncio.run(store.read(["ann"], history=5)) == [ANN.known(history=5)]


async def test_a_locked_store_is_unavailable(tmp_path, monkeypatch):
    """A store that another process keeps locked is reported as unavailable instead of blocking the event loop."""
    monkeypatch.setattr("recstore.sqlite_file._LOCK_TIMEOUT_MS", 50)
    store = SqliteStore(tmp_path / "store.db", create=True)
    holder = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    await store.aclose()
    store = SqliteStore(tmp_path / "store.db", create=True)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailableError, match="locked"):
        await store.replace([ANN], population=UNKNOWN_FEATURES)
    holder.execute("ROLLBACK")
    assert await store.replace([ANN], population=UNKNOWN_FEATURES) == 1


def test_a_file_that_is_not_a_store_is_refused(tmp_path):
    """The store refuses another program's file or database and does not change it."""
    text = tmp_path / "notes.txt"
    text.write_text("not a database, " * 100)
    with pytest.raises(StoreFormatError, match="not a database"):
        SqliteStore(text)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    with pytest.raises(StoreFormatError, match="version 0"):
        SqliteStore(other)
    newer = tmp_path / "newer.db"
    with sqlite3.connect(newer) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(StoreFormatError, match=f"version {SCHEMA_VERSION + 1}"):
        SqliteStore(newer)


@pytest.mark.may_block
def test_a_refused_file_leaves_nothing_beside_it(tmp_path):
    """The store closes every connection to a damaged file, even while the caller still holds the error."""
    path = tmp_path / "store.db"

    async def fill() -> None:
        store = SqliteStore(path, create=True)
        await store.replace([UserRecord(f"u{n}", "25-34") for n in range(500)], population=UNKNOWN_FEATURES)
        await store.aclose()

    asyncio.run(fill())
    path.write_bytes(path.read_bytes()[: 4096 * 2 + 7])
    with pytest.raises(StoreFormatError, match="malformed|damaged") as held:
        SqliteStore(path)
    assert [file.name for file in tmp_path.iterdir()] == ["store.db"], held.value


def test_a_missing_folder_is_unavailable(tmp_path):
    """A path that cannot be opened raises StoreUnavailableError, not an error of SQLite."""
    with pytest.raises(StoreUnavailableError, match="unable to open"):
        SqliteStore(tmp_path / "missing" / "store.db", create=True)


def test_simultaneous_openers_create_one_store(tmp_path):
    """Instances that open a new file at the same time create the same tables, and none finds it locked."""
    failures: list[Exception] = []

    def open_it(path: Path) -> None:
        try:
            asyncio.run(SqliteStore(path, create=True).aclose())
        except Exception as error:
            failures.append(error)

    # Without the protection, one run in about fifteen shows the failure.
    for number in range(40):
        openers = [threading.Thread(target=open_it, args=[tmp_path / f"{number}.db"]) for _ in range(8)]
        for opener in openers:
            opener.start()
        for opener in openers:
            opener.join()
    assert failures == []


def test_urls_select_stores(tmp_path):
    """The scheme of a URL selects the kind of store, and its path the file."""
    assert isinstance(open_store("memory:"), MemoryStore)
    open_store(f"sqlite:///{tmp_path}/a%20store.db", create=True)
    assert Path(tmp_path / "a store.db").exists()


@pytest.mark.parametrize("url", ["", "sqlite:", "sqlite:///", "sqlite://host/file", "postgres://x/y", "file.db"])
def test_unsupported_urls_are_refused(url):
    """A URL of an unknown kind is refused with a list of the supported kinds."""
    with pytest.raises(StoreFormatError, match="feature store"):
        open_store(url)
