"""An erasure by event leaves no byte of the user in the files of the store."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from functions.extract_features.ingest import Ingest
from functions.extract_features.scrubber import Scrubber
from recstore.memory import MemoryStore
from recstore.port import QUICK_BYTES, StoreUnavailableError
from recstore.sqlite import SqliteStore
from recsys.features import UNKNOWN_FEATURES
from recsys.records import HistoryItem, Interaction, UserRecord
from tests.files import content
from tests.waiting import LIMIT_S, until

USER = "someone-123"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """Yield a store whose pages were split and moved, so that removed rows leave copies in them."""
    users = [UserRecord(f"someone-{n:03}", "55+", history=[HistoryItem(f"i{k}", 1.0, k) for k in range(9)])
             for n in range(300)]  # fmt: skip
    async with aclosing(SqliteStore(tmp_path / "store.db", create=True)) as opened:
        for _ in range(2):
            await opened.replace(users, population=UNKNOWN_FEATURES)
        for n in range(20):
            views = [
                Interaction("/s", f"{n}-{k}", f"someone-{k:03}", "view", n, f"j{n}", weight=1.0) for k in range(300)
            ]
            await opened.apply(views)
        yield opened


async def test_the_files_are_scrubbed_after_an_erasure(store: SqliteStore, tmp_path: Path) -> None:
    """The function that took the event rewrites the file; the other users stay."""
    ingest = Ingest(store, scrubber=Scrubber(store, pause_s=0))
    async with ingest.scrubber.running():
        await ingest.erase(USER, at_us=10**15)
        await until(lambda: USER.encode() not in content(tmp_path))
        async with asyncio.timeout(LIMIT_S):
            while not await store.is_scrubbed():
                await asyncio.sleep(0.01)
    assert b"someone-124" in content(tmp_path)


async def test_a_large_store_is_left_for_the_next_start(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing a large store would keep events waiting."""
    await store.erase(USER, at_us=10**15)
    monkeypatch.setattr("recstore.sqlite.QUICK_BYTES", 1000)
    assert not await store.scrub(quickly=True)
    assert not await store.is_scrubbed()
    assert await store.scrub()
    assert await store.is_scrubbed()
    assert QUICK_BYTES > 1000


class Busy(MemoryStore):
    """A store that another process reads at the first scrubbing."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = [StoreUnavailableError("busy"), None]
        self.scrubbed = asyncio.Event()

    async def scrub(self, *, quickly: bool = False) -> bool:
        if error := self.answers.pop(0):
            raise error
        self.scrubbed.set()
        return True


async def test_a_store_that_is_busy_is_scrubbed_later() -> None:
    """The erasure stays noted until the scrubbing succeeds; an erasure that removed nothing needs none."""
    store = Busy()
    ingest = Ingest(store, scrubber=Scrubber(store, pause_s=0))
    async with ingest.scrubber.running():
        await ingest.erase("stranger", at_us=1)
        await asyncio.sleep(0)
        assert len(store.answers) == 2
        await store.apply([Interaction("/s", "1", USER, "view", 1, "i", weight=1.0)])
        await ingest.erase(USER, at_us=2)
        async with asyncio.timeout(LIMIT_S):
            await store.scrubbed.wait()
