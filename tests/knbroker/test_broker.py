"""The broker with subscribers that follow a script."""

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from chassis.wire.cloudevents import Event
from chassis.wire.http_connection import Answer
from chassis.wire.problems import ServingError
from knbroker.delivery import Delivery
from knbroker.queue import DeadLetterChoice, Queue
from kubeyaml.eventing import DeliverySpec as Policy
from kubeyaml.eventing import Trigger
from localkn.errors import RefusedError
from tests.knbroker.brokers import EVENT, FAST, disk_fails, idle, running, stored
from tests.knbroker.subscribers import Subscribers, answer, event_answer
from tests.waiting import LIMIT_S


async def test_an_event_is_delivered_to_matching_triggers(tmp_path: Path) -> None:
    """The event is delivered once, with its arrival time and without the broker's own attribute."""
    subscribers = Subscribers()
    async with running(tmp_path, subscribers) as broker:
        await broker.accept("ns/b", EVENT.extended(knativebrokerttl="9"), [(b"traceparent", b"x"), (b"cookie", b"y")])
        ((url, headers, body),) = await subscribers.until(1)
        figures = await idle(broker)
    assert (url, body, headers["traceparent"]) == ("http://a", b"{}", "x")
    assert "cookie" not in headers
    assert "ce-knativebrokerttl" not in headers
    assert "ce-knativearrivaltime" in headers
    assert figures["triggers"]["ns/a"]["delivered"] == 1
    assert figures["brokers"] == {"ns/b": 1}


async def test_an_unwanted_event_is_accepted_and_counted(tmp_path: Path) -> None:
    """The broker accepts and counts an event that no Trigger wants, and drops it as a cluster does."""
    async with running(tmp_path, Subscribers()) as broker:
        await broker.accept("ns/b", EVENT.extended(type="c"), [])
        assert (await broker.figures(letters=0))["unwanted"] == 1


@pytest.mark.parametrize(
    ("name", "event", "status", "reason"),
    [
        ("ns/c", EVENT, 404, "there is no Broker ns/c"),
        ("ns/b", EVENT.extended(**{f"x{number}": "a" for number in range(55)}), 400, "at most 58 attributes"),
        ("ns/b", EVENT.extended(x="a" * 29_000), 400, "and 28672 bytes of them as headers"),
        ("ns/b", EVENT.extended(knativebrokerttl=1), 400, "knativebrokerttl is spent"),
        ("ns/b", EVENT.extended(knativebrokerttl="0"), 400, "knativebrokerttl is spent"),
    ],
)
async def test_events_for_other_brokers_and_looping_events_are_refused(
    name: str, event: Event, status: int, reason: str, tmp_path: Path
) -> None:
    """The broker refuses an event for an unknown Broker and one with a spent TTL, and keeps nothing of it."""
    async with running(tmp_path, subscribers := Subscribers()) as broker:
        with pytest.raises(ServingError, match=reason) as caught:
            await broker.accept(name, event, [])
    assert caught.value.status == status
    assert subscribers.posts == []


async def test_a_full_queue_refuses_events(tmp_path: Path) -> None:
    """The broker refuses events with 503 while its queue is full, and delivers every event that it accepted."""
    blocked: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    class Stuck(Subscribers):
        async def post(self, *_: Any, **__: Any) -> Answer:
            return await blocked

    async with running(tmp_path, Stuck(), limit=2) as broker:
        for number in "12":
            await broker.accept("ns/b", EVENT.extended(id=number), [])
        with pytest.raises(ServingError, match="full") as caught:
            await broker.accept("ns/b", EVENT, [])
        assert caught.value.status == 503
        blocked.set_result(answer())
        assert (await idle(broker))["triggers"]["ns/a"]["delivered"] == 2
        await broker.accept("ns/b", EVENT, [])


async def test_a_failed_write_refuses_the_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker accepts no event that it cannot write to disk."""
    monkeypatch.setattr(Queue, "add", disk_fails)
    async with running(tmp_path, Subscribers()) as broker:
        with pytest.raises(ServingError, match="cannot be written") as caught:
            await broker.accept("ns/b", EVENT, [])
    assert caught.value.status == 503


async def test_failed_deliveries_are_retried(tmp_path: Path) -> None:
    """Connection errors, error statuses and text instead of an event are retried as the policy allows."""
    subscribers = Subscribers([httpx.ConnectError("refused"), answer(503), answer(200, b"OK")])
    async with running(tmp_path, subscribers) as broker:
        await broker.accept("ns/b", EVENT, [])
        await subscribers.until(4)
        figures = await idle(broker)
    assert figures["triggers"]["ns/a"] | {"oldest_s": 0} == {
        "subscriber": "http://a", "dead_letter_sink": None, "delivered": 1, "failed": 3, "waiting": 0, "retrying": 0,
        "dead": 0, "oldest_s": 0,
    }  # fmt: skip


@pytest.mark.parametrize("step", ["compose", "judge", "reply_of", "post"])
async def test_an_internal_error_affects_one_event_only(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The event is retried, becomes a dead letter with its traceback in the log, and the next event is delivered."""

    def fail(*_: object, **__: object) -> Any:
        raise RuntimeError("odd")

    subscribers = Subscribers([fail if step == "post" else event_answer(type="b")] * 4)
    async with running(tmp_path, subscribers) as broker:
        with monkeypatch.context() as patch:
            if step != "post":
                patch.setattr(f"knbroker.delivery.{step}", fail)
            await broker.accept("ns/b", EVENT, [])
            (letter,) = (await idle(broker))["dead_letters"]
        subscribers.script.clear()
        await broker.accept("ns/b", EVENT, [])
        found = (await idle(broker))["triggers"]["ns/a"]
    assert letter["failure"] == {
        "destination": "http://a", "code": 500, "reason": "dispatch error: RuntimeError('odd')",
    }  # fmt: skip
    assert (found["failed"], found["dead"], found["delivered"]) == (4, 1, 1)
    assert capsys.readouterr().err.count("event 1 cannot be delivered to ns/a:\nTraceback") == 4


async def test_a_slow_subscriber_times_out(tmp_path: Path) -> None:
    """The client gets the policy's timeout, and a post that exceeds it is a failure like any other."""
    given: list[float] = []

    class Slow(Subscribers):
        async def post(self, url: str, *, timeout_s: float, **rest: Any) -> Answer:
            taken = await super().post(url, timeout_s=timeout_s, **rest)
            given.append(timeout_s)
            if len(self.posts) == 1:
                raise httpx.ReadTimeout("no answer in time")
            return taken

    hasty = Trigger("ns/a", "ns/b", "http://a", (), Policy(1, timeout_s=0.01))
    async with running(tmp_path, subscribers := Slow(), [hasty]) as broker:
        await broker.accept("ns/b", EVENT, [])
        await subscribers.until(2)
        assert given == [0.01, 0.01]
        assert (await idle(broker))["triggers"]["ns/a"]["delivered"] == 1


async def test_a_refused_event_becomes_a_dead_letter(tmp_path: Path) -> None:
    """A refused event is tried once and kept as a dead letter with its reason; a successful redrive removes it."""
    subscribers = Subscribers([answer(422, b"no item")])
    async with running(tmp_path, subscribers) as broker:
        await broker.accept("ns/b", EVENT, [])
        await subscribers.until(1)
        (letter,) = (await idle(broker))["dead_letters"]
        assert letter["failure"] == {"destination": "http://a", "code": 422, "reason": "no item"}
        assert (letter["event"]["id"], letter["trigger"]) == ("1", "ns/a")
        assert await broker.revive(DeadLetterChoice(ids=["other"])) == {"redriven": 0, "unknown": ["other"]}
        assert await broker.revive(DeadLetterChoice()) == {"redriven": 1, "unknown": []}
        await subscribers.until(2)
        figures = await idle(broker)
    assert (figures["dead_letters"], figures["triggers"]["ns/a"]["delivered"]) == ([], 1)


async def test_a_dead_letter_is_delivered_to_the_sink(tmp_path: Path) -> None:
    """The sink gets the event with the error, and the broker keeps no copy."""
    with_sink = Trigger("ns/a", "ns/b", "http://a", (), FAST, dead_letter_sink="http://sink")
    async with running(tmp_path, subscribers := Subscribers([answer(400, b"bad")]), [with_sink]) as broker:
        await broker.accept("ns/b", EVENT, [])
        _, (url, headers, _) = await subscribers.until(2)
        figures = await idle(broker)
    assert (url, headers["ce-knativeerrorcode"], headers["ce-id"]) == ("http://sink", "400", "1")
    assert figures["dead_letters"] == []


async def test_events_of_an_earlier_process_are_delivered(tmp_path: Path) -> None:
    """Every event that was accepted before a crash is delivered after it."""
    queue = Queue(tmp_path / "q.db", ["ns/a", "ns/b"])
    for _ in range(3):
        await queue.add(stored(), ["ns/a"])
    # The queue stays open, because a killed process does not close it.
    async with running(tmp_path, subscribers := Subscribers()) as broker:
        await subscribers.until(3)
        assert (await idle(broker))["triggers"]["ns/a"]["delivered"] == 3
    await queue.close()


async def test_a_clock_set_back_does_not_delay_earlier_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A delivery that was due soon does not wait for an hour because the clock was set back by an hour."""
    monkeypatch.setattr("knbroker.delivery._LONGEST_PAUSE_S", 0.001)
    queue = Queue(tmp_path / "q.db", ["ns/a"])
    (delivery,) = await queue.add(stored(), ["ns/a"])
    await queue.put(Delivery(delivery.event, "ns/a", 1, time.monotonic() + 3600))
    await queue.close()
    async with running(tmp_path, subscribers := Subscribers()), asyncio.timeout(LIMIT_S):
        await subscribers.until(1)


async def test_the_record_of_a_delivery_is_written_again_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker repeats the write and not the delivery, because the subscriber already has the event."""
    monkeypatch.setattr("knbroker.broker._DISK_PAUSE_S", 0.001)
    end, calls = Queue.end, []

    async def fail_once(queue: Queue, delivery: Delivery, **_: object) -> None:
        calls.append(delivery)
        await (disk_fails() if len(calls) == 1 else end(queue, delivery))

    monkeypatch.setattr(Queue, "end", fail_once)
    async with running(tmp_path, subscribers := Subscribers()) as broker:
        await broker.accept("ns/b", EVENT, [])
        assert (await idle(broker))["triggers"]["ns/a"]["delivered"] == 1
    assert (len(calls), len(subscribers.posts)) == (2, 1)


async def test_an_id_of_several_sources_is_redriven_for_one(tmp_path: Path) -> None:
    """An id is unique within its source only, so a redrive of an id with several sources has to name one."""
    async with running(tmp_path, Subscribers([answer(400)] * 2)) as broker:
        for source in ("/s", "/t"):
            await broker.accept("ns/b", EVENT.extended(source=source), [])
        assert (await idle(broker))["triggers"]["ns/a"]["dead"] == 2
        with pytest.raises(RefusedError, match="1: dead letters of /s, /t; say which with --source"):
            await broker.revive(DeadLetterChoice(ids=["1"]))
        assert await broker.revive(DeadLetterChoice(ids=["1"], source="/t")) == {"redriven": 1, "unknown": []}
        assert await broker.revive(DeadLetterChoice(source="/t")) == {"redriven": 0, "unknown": []}
        assert (await idle(broker))["triggers"]["ns/a"]["dead"] == 1


async def test_a_redrive_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal names the reason, and the dead letter stays."""
    monkeypatch.setattr(Queue, "revive", disk_fails)
    async with running(tmp_path, Subscribers([answer(400)])) as broker:
        await broker.accept("ns/b", EVENT, [])
        await idle(broker)
        with pytest.raises(RefusedError, match="cannot be written"):
            await broker.revive(DeadLetterChoice())
        assert (await idle(broker))["triggers"]["ns/a"]["dead"] == 1


async def test_deliveries_run_concurrently_up_to_the_limit(tmp_path: Path) -> None:
    """The limit applies to each Trigger, so a busy Trigger does not delay another."""
    gate, under_way, most = asyncio.Event(), 0, 0

    class Gated(Subscribers):
        async def post(self, url: str, **rest: Any) -> Answer:
            nonlocal under_way, most
            under_way += url == "http://a"
            most = max(most, under_way)
            if url == "http://a":
                await gate.wait()
            under_way -= url == "http://a"
            return await super().post(url, **rest)

    async with running(tmp_path, subscribers := Gated(), at_once=3) as broker:
        for number in range(10):
            await broker.accept("ns/b", EVENT.extended(id=str(number)), [])
        await broker.accept("ns/b", EVENT.extended(type="b"), [])
        ((url, *_),) = await subscribers.until(1)
        assert (url, most) == ("http://b", 3)
        gate.set()
        assert (await idle(broker))["triggers"]["ns/a"]["delivered"] == 10
    assert most == 3
