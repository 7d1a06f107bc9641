"""The files of the broker's queue hold nothing of an event that every Trigger has."""

import asyncio
import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from chassis.wire.cloudevents import Event
from knbroker.delivery import Delivery, Failure, Stored
from knbroker.queue import Queue
from tests.files import content
from tests.knbroker.subscribers import NEEDED
from tests.waiting import until

USER = b"ann-of-the-hill"
FAILURE = Failure("http://a", 400, b"no")


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("knbroker.queue._CLEANING_SHARE", 1.0)


def about(user: bytes, number: int, *, size: int = 0) -> Stored:
    data = b'{"user_id":"%s","note":"%s"}' % (user, user * (size // len(user)))
    return Stored("ns/b", Event({**NEEDED, "id": str(number), "subject": user.decode()}, data), 255, [])


async def test_delivered_events_leave_the_files_while_the_queue_is_in_use(tmp_path: Path) -> None:
    """Small and large events of a user are gone after their deliveries; waiting events and dead letters of others stay."""
    queue = Queue(tmp_path / "q.db", ["ns/t", "ns/u"], reserve_bytes=4096, cleaning_pause_s=0)
    other = await queue.add(about(b"bob", 0), ["ns/t", "ns/u"])
    await queue.put(Delivery(other[0].event, "ns/t", 1, 0.0, FAILURE, is_dead=True))
    for number, size in enumerate((0, 100, 5000, 60_000, 0, 300)):
        first, second = await queue.add(about(USER, number, size=size), ["ns/t", "ns/u"])
        await queue.end(first)
        await asyncio.sleep(0)
        assert queue.read(second.event).event.data
        await queue.end(second)
    await until(lambda: USER not in content(tmp_path))
    assert b"bob" in content(tmp_path)
    assert [each.trigger for each in queue.pending()] == ["ns/u"]
    await queue.close()


async def test_an_event_whose_reply_took_its_place_leaves_the_files(tmp_path: Path) -> None:
    """The end of a delivery by a reply counts as a deletion too."""
    queue = Queue(tmp_path / "q.db", ["ns/t"], reserve_bytes=4096, cleaning_pause_s=0)
    (cause,) = await queue.add(about(USER, 1), ["ns/t"])
    await queue.add(about(b"bob", 2), ["ns/t"], cause=cause)
    await until(lambda: USER not in content(tmp_path))
    assert len(queue.pending()) == 1
    await queue.close()


async def test_the_files_are_clean_after_the_end(tmp_path: Path) -> None:
    """A queue that ends before its next cleaning cleans the files."""
    queue = Queue(tmp_path / "q.db", ["ns/t"], reserve_bytes=4096)
    for number in range(50):
        (delivery,) = await queue.add(about(USER, number), ["ns/t"])
        await queue.end(delivery)
    assert USER in content(tmp_path)
    await queue.close()
    assert USER not in content(tmp_path)


async def test_the_files_are_clean_after_a_crash(tmp_path: Path) -> None:
    """The next start removes the bytes that a killed process left."""
    program = f"""
import asyncio, os
from pathlib import Path
from knbroker.queue import Queue
from tests.knbroker.test_cleaning import USER, about

async def run():
    queue = Queue(Path({str(tmp_path)!r}) / "q.db", ["ns/t"], reserve_bytes=4096)
    for number in range(20):
        (delivery,) = await queue.add(about(USER, number), ["ns/t"])
        await queue.end(delivery)
    os._exit(9)

asyncio.run(run())
"""
    assert (await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], check=False)).returncode == 9
    assert USER in content(tmp_path)
    queue = Queue(tmp_path / "q.db", ["ns/t"], reserve_bytes=4096)
    assert USER not in content(tmp_path)
    await queue.close()


async def test_a_process_that_reads_an_older_state_delays_the_cleaning(tmp_path: Path) -> None:
    """The queue cleans again until no process needs the log."""
    queue = Queue(tmp_path / "q.db", ["ns/t"], reserve_bytes=4096, cleaning_pause_s=0)
    (delivery,) = await queue.add(about(USER, 1), ["ns/t"])
    with closing(sqlite3.connect(tmp_path / "q.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT COUNT(*) FROM events").fetchone() == (1,)
        await queue.end(delivery)
        log = tmp_path / "q.db-wal"
        size_bytes = log.stat().st_size
        # Cleaning rewrites the file into the log, which it then cannot empty.
        await until(lambda: log.stat().st_size != size_bytes)
        assert USER in content(tmp_path)
    await until(lambda: USER not in content(tmp_path))
    await queue.close()


@pytest.mark.parametrize("seed", [1, 2])
async def test_no_order_of_deliveries_leaves_a_copy(tmp_path: Path, seed: int) -> None:
    """Events that are deleted between others, from pages that were split and joined, leave no copy."""
    queue, drawn = Queue(tmp_path / "q.db", ["ns/t"], reserve_bytes=4096), random.Random(seed)
    sizes = [drawn.choice([0, 50, 500, 5000]) for _ in range(120)]
    gone = [(await queue.add(about(USER, number, size=size), ["ns/t"]))[0] for number, size in enumerate(sizes)]
    for number in range(60):
        await queue.add(about(b"bob", number), ["ns/t"])
    for delivery in drawn.sample(gone, len(gone)):
        await queue.end(delivery)
    await queue.close()
    assert USER not in content(tmp_path)
    assert content(tmp_path).count(b'"subject":"bob"') == 60
