"""A queue whose disk is full: what must be recorded is recorded, and the disk gets back the space of delivered events."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chassis.wire.cloudevents import Event
from knbroker.delivery import Stored
from knbroker.queue import NoRoomError, Queue
from tests.knbroker.subscribers import NEEDED

pytestmark = [pytest.mark.anyio, pytest.mark.may_block]

RESERVE_BYTES = 2**20
EVENT = Stored("ns/b", Event(NEEDED, b"x" * 100_000), 10, [])
LARGE = Stored("ns/b", Event(NEEDED, b"x" * 1_000_000), 10, [])


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "q.db"


@pytest.fixture
async def queue(path: Path) -> AsyncIterator[Queue]:
    """Open an empty queue."""
    queue = Queue(path, ["ns/a"], reserve_bytes=RESERVE_BYTES)
    yield queue
    await queue.close()


async def test_a_new_queue_holds_its_reserve(queue: Queue, path: Path) -> None:
    """A disk that fills up before the first event leaves room to record deliveries."""
    assert queue.has_room
    assert path.with_name("q.db.reserve").stat().st_size == RESERVE_BYTES


async def test_a_delivery_is_recorded_beside_an_event_without_room(queue: Queue) -> None:
    """An event and the end of a delivery arrive together: the queue refuses the event, and records the end."""
    (delivery,) = await queue.add(EVENT, ["ns/a"])
    (pages,) = queue._writer.execute("PRAGMA page_count").fetchone()
    queue._writer.execute(f"PRAGMA max_page_count = {pages + 4}")
    refused, ended = await asyncio.gather(queue.add(LARGE, ["ns/a"]), queue.end(delivery), return_exceptions=True)
    assert isinstance(refused, NoRoomError)
    assert ended is None
    assert queue.pending() == []


async def test_space_of_delivered_events_goes_back_to_the_disk(queue: Queue, path: Path) -> None:
    """Before the queue holds its reserve again, the file and its log shrink."""
    log = path.with_name("q.db-wal")

    def sizes() -> tuple[int, int]:
        return path.stat().st_size, log.stat().st_size

    for delivery in [(await queue.add(EVENT, ["ns/a"]))[0] for _ in range(15)]:
        await queue.end(delivery)
    await queue._query("PRAGMA wal_checkpoint")
    (free,) = queue._writer.execute("PRAGMA freelist_count").fetchone()
    size, log_size = sizes()
    assert free > 300
    assert log_size > 0
    queue._reserve.release()
    assert await queue._recover()
    assert sizes() == (size - free * 4096, 0)
