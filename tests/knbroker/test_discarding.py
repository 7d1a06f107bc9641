"""Discarding events about a topic from the broker's queue."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from chassis.wire.cloudevents import Event
from chassis.wire.http_connection import Answer
from knbroker.delivery import Delivery, Failure, Stored
from knbroker.queue import DiscardedError, Queue
from knbroker.topics import Topic, discard
from localkn.errors import RefusedError
from tests.files import content
from tests.knbroker.brokers import TO_A, disk_fails, idle, running
from tests.knbroker.subscribers import NEEDED, Subscribers, answer, event_answer

ANN = Topic("user_id", "ann-of-the-hill")
DATA = b'{"user_id": "ann-of-the-hill"}'


def event(data: bytes, **attributes: str) -> Event:
    return Event({**NEEDED, **attributes}, data)


@pytest.mark.parametrize(
    ("data", "attributes", "is_about"),
    [
        (DATA, {}, True),
        (b'{"user_id": "\\u0061nn-of-the-hill", "more": 1}', {}, True),
        (b"{}", {"subject": "ann-of-the-hill"}, True),
        (b'{"user_id": "ann-of-the-hill-too"}', {"subject": "ann"}, False),
        (b'{"item_id": "ann-of-the-hill"}', {}, False),
        (b'["ann-of-the-hill"]', {}, False),
        (b"\xff", {}, False),
        (b"", {}, False),
    ],
)
def test_a_topic_is_the_subject_or_a_member_of_the_data(data, attributes, is_about):
    """The topic is compared as a whole, in the subject and in one member of JSON data."""
    assert ANN.is_of(attributes, data) == is_about


async def test_waiting_events_and_dead_letters_are_discarded(tmp_path: Path) -> None:
    """Events about the topic leave no byte in the files, delivered ones included; others stay."""
    queue = Queue(tmp_path / "q.db", ["ns/t"])
    stored = [Stored("ns/b", event(data), 255, []) for data in (DATA, DATA, DATA, b'{"user_id": "bob"}')]
    waiting, dead, delivered, other = [(await queue.add(each, ["ns/t"]))[0] for each in stored]
    await queue.put(Delivery(dead.event, "ns/t", 1, 0.0, Failure("http://a", 400, DATA), is_dead=True))
    await queue.end(delivered)
    assert await queue.discard(ANN) == 2
    assert [each.event for each in queue.pending()] == [other.event]
    assert (await queue.figures(letters=9)).dead_letters == []
    with pytest.raises(DiscardedError):
        queue.read(waiting.event)
    # Late ends and failures of a discarded delivery change nothing.
    await queue.put(Delivery(waiting.event, "ns/t", 1, 0.0, Failure("http://a", 400, DATA)))
    await queue.end(dead)
    assert [each.event for each in queue.pending()] == [other.event]
    assert b"ann-of-the-hill" not in content(tmp_path)
    await queue.close()


async def test_a_file_without_a_broker_is_cleared(tmp_path: Path) -> None:
    """The events of a stopped platform are discarded in its file."""
    queue = Queue(tmp_path / "q.db", ["ns/t"])
    await queue.add(Stored("ns/b", event(DATA), 255, []), ["ns/t"])
    await queue.close()
    with closing(sqlite3.connect(tmp_path / "q.db", isolation_level=None)) as connection:
        assert discard(connection, ANN) == 1
    assert b"ann-of-the-hill" not in content(tmp_path)


async def test_a_delivery_under_way_ends_without_a_retry(tmp_path: Path) -> None:
    """An event that is discarded during its delivery is not sent again, and its reply is dropped."""
    answers: dict[str, Answer] = {"1": answer(500), "2": event_answer(type="a", id="reply")}

    class Gated(Subscribers):
        async def post(self, url: str, *, headers: Any, **rest: Any) -> Answer:
            await super().post(url, headers=headers, **rest)
            await opened.wait()
            return answers[dict(headers)["ce-id"]]

    opened, subscribers = asyncio.Event(), Gated()
    async with running(tmp_path, subscribers, [TO_A]) as broker:
        for number in "12":
            await broker.accept("ns/b", event(DATA, id=number), [])
        await subscribers.until(2)
        assert await broker.discard(ANN) == {"discarded": 2}
        opened.set()
        figures = await idle(broker)
        assert (figures["under_way"], figures["dead_letters"]) == (0, [])
        await broker.accept("ns/b", event(b"{}", id="2"), [])
        assert len(await subscribers.until(3)) == 3


async def test_a_queue_that_cannot_be_rewritten_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure names its cause and the remedy."""
    monkeypatch.setattr(Queue, "discard", disk_fails)
    async with running(tmp_path, Subscribers(), [TO_A]) as broker:
        with pytest.raises(RefusedError, match="try again"):
            await broker.discard(ANN)


@pytest.mark.parametrize(
    "others",
    [
        b'{"answers":[{"user_id":"bob"},{"user_id":"ann-of-the-hill"}],"size":2}',
        b'{"user_id":["bob","ann-of-the-hill",7]}',
        b'{"parts":[{"user_id":["bob"]},{"user_id":["eve","ann-of-the-hill"]}]}',
    ],
)
def test_an_event_about_several_users_is_about_each(others: bytes) -> None:
    """An erasure also finds a user in lists of the data, as in an event about a group of answers."""
    assert ANN.is_of({}, others)
    assert not ANN.is_of({}, others.replace(b"ann-of-the-hill", b"eve"))
    assert not ANN.is_of({}, b'{"answers":["ann-of-the-hill",[{"user_id":"ann-of-the-hill"}]]}')
