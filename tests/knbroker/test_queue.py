"""The broker's queue on disk."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from chassis.wire.cloudevents import Event
from knbroker.delivery import Delivery, Failure, Stored
from knbroker.queue import DeadLetterChoice, Queue

STORED = Stored(
    "ns/b", Event({"specversion": "1.0", "id": "1", "source": "/s", "type": "a"}, b"\x00"), 255, [("x", "y")]
)
FAILURE = Failure("http://sub", 500, b"\xffoops", 1.5)


def pending(queue: Queue) -> list[tuple[int, str]]:
    return [(delivery.event, delivery.trigger) for delivery in queue.pending()]


def with_id(number: str) -> Stored:
    return Stored("ns/b", STORED.event.extended(id=number), 255, [])


async def test_accepted_events_survive_the_process(tmp_path: Path) -> None:
    """A second connection reads the event, its headers and the state of each delivery while the first is still open."""
    queue = Queue(tmp_path / "q.db", ["ns/t", "ns/u"])
    added = await queue.add(STORED, ["ns/t", "ns/u"])
    assert added == [Delivery(1, "ns/t"), Delivery(1, "ns/u")]
    await queue.put(Delivery(1, "ns/u", 2, 1e6, FAILURE))
    again = Queue(tmp_path / "q.db", ["ns/t", "ns/u"])
    first, second = again.pending()
    assert (first.trigger, first.attempts, first.failure) == ("ns/t", 0, None)
    assert (second.trigger, second.attempts, second.failure) == ("ns/u", 2, FAILURE)
    assert second.due_at == pytest.approx(1e6, abs=0.1)
    assert again.read(1) == STORED
    await again.close()
    await queue.close()


async def test_an_event_is_deleted_with_its_last_delivery(tmp_path: Path) -> None:
    """An event stays in the queue until its last delivery has ended."""
    queue = Queue(tmp_path / "q.db", ["ns/t", "ns/u"])
    first, second = await queue.add(STORED, ["ns/t", "ns/u"])
    await queue.end(first)
    assert queue.read(1) == STORED
    assert pending(queue) == [(second.event, second.trigger)]
    await queue.end(second)
    assert queue.pending() == []
    assert sqlite3.connect(tmp_path / "q.db").execute("SELECT COUNT(*) FROM events").fetchone() == (0,)
    await queue.close()


async def test_a_reply_is_stored_as_its_cause_ends(tmp_path: Path) -> None:
    """One transaction stores the reply and ends its cause, even if no Trigger wants the reply."""
    queue = Queue(tmp_path / "q.db", ["ns/t"])
    (cause,) = await queue.add(STORED, ["ns/t"])
    (following,) = await queue.add(with_id("reply"), ["ns/t"], cause=cause)
    assert pending(queue) == [(following.event, following.trigger)]
    assert await queue.add(with_id("unwanted"), [], cause=following) == []
    assert queue.pending() == []
    await queue.close()


async def test_simultaneous_writes_share_a_transaction(tmp_path: Path) -> None:
    """Fifty simultaneous events need two commits: one for the first, and one for those that arrive during it."""
    queue = Queue(tmp_path / "q.db", ["ns/t"])
    commits = []
    queue._writer.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
    await asyncio.gather(*(queue.add(with_id(str(number)), ["ns/t"]) for number in range(50)))
    assert len(queue.pending()) == 50
    assert len(commits) <= 2
    await queue.close()


async def test_a_failed_write_is_reported(tmp_path: Path) -> None:
    """Every lost write raises an error and leaves nothing in the queue, and later writes work."""
    queue = Queue(tmp_path / "q.db", ["ns/t"])
    queue._writer.execute("PRAGMA query_only = ON")
    lost = await asyncio.gather(*(queue.add(with_id(str(n)), ["ns/t"]) for n in range(3)), return_exceptions=True)
    assert [type(each) for each in lost] == [sqlite3.OperationalError] * 3
    queue._writer.execute("PRAGMA query_only = OFF")
    (kept,) = await queue.add(STORED, ["ns/t"])
    assert pending(queue) == [(kept.event, kept.trigger)]
    await queue.close()


async def test_deliveries_to_a_deleted_trigger_are_dropped(tmp_path: Path) -> None:
    """The queue drops the deliveries of a Trigger that no longer exists, as a cluster does."""
    queue = Queue(tmp_path / "q.db", ["ns/t", "ns/u"])
    await queue.add(STORED, ["ns/t", "ns/u"])
    await queue.add(with_id("2"), ["ns/t"])
    await queue.close()
    queue = Queue(tmp_path / "q.db", ["ns/u"])
    assert pending(queue) == [(1, "ns/u")]
    await queue.close()


async def test_dead_letters_wait_for_a_redrive(tmp_path: Path) -> None:
    """Dead letters are listed but not delivered; each is redriven once, by id, by Trigger, or with all others."""
    queue = Queue(tmp_path / "q.db", ["ns/t", "ns/u"])
    for number in "123":
        for delivery in await queue.add(with_id(number), ["ns/t", "ns/u"]):
            await queue.put(Delivery(delivery.event, delivery.trigger, 1, 0.0, FAILURE, is_dead=True))
    assert queue.pending() == []
    figures = await queue.figures(letters=4)
    assert figures.of("ns/t") == {"delivered": 0, "failed": 3, "waiting": 0, "retrying": 0, "dead": 3, "oldest_s": None}
    assert len(figures.dead_letters) == 4
    letter = figures.dead_letters[0]
    assert letter["failure"] == {"destination": "http://sub", "code": 500, "reason": "\ufffdoops"}
    assert await queue.revive(DeadLetterChoice(ids=["2"])) == [Delivery(2, "ns/t"), Delivery(2, "ns/u")]
    assert await queue.revive(DeadLetterChoice("ns/t", ["2", "3"])) == [Delivery(3, "ns/t")]
    assert await queue.revive(DeadLetterChoice()) == [Delivery(1, "ns/t"), Delivery(1, "ns/u"), Delivery(3, "ns/u")]
    assert await queue.revive(DeadLetterChoice()) == []
    assert len(queue.pending()) == 6
    await queue.close()


async def test_the_queue_reports_figures(tmp_path: Path) -> None:
    """The figures hold lifetime counts and the age of the oldest waiting delivery."""
    queue = Queue(tmp_path / "q.db", ["ns/t"])
    (first,) = await queue.add(STORED, ["ns/t"])
    (second,) = await queue.add(with_id("2"), ["ns/t"])
    await queue.end(first)
    await queue.put(Delivery(second.event, "ns/t", 1, 0.0))
    figures = await queue.figures(letters=1)
    found = figures.of("ns/t")
    assert 0 <= found.pop("oldest_s") < 60
    assert found == {"delivered": 1, "failed": 1, "waiting": 1, "retrying": 1, "dead": 0}
    assert figures.counts["accepted", "ns/b"] == 2
    assert figures.of("ns/other")["waiting"] == 0
    await queue.close()
