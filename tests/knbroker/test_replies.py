"""A subscriber may answer with an event, which the broker accepts as any other."""

import asyncio
from pathlib import Path
from typing import Any

from chassis.wire.http_connection import Answer
from knbroker.queue import Queue
from kubeyaml.eventing import DeliverySpec as Policy
from kubeyaml.eventing import Trigger
from tests.knbroker.brokers import EVENT, idle, running, stored
from tests.knbroker.subscribers import Subscribers, answer, event_answer


async def test_a_reply_is_routed_by_the_broker(tmp_path: Path) -> None:
    """The reply is delivered to the Triggers that want it, in the same trace."""
    subscribers = Subscribers([event_answer(type="b", id="2")])
    async with running(tmp_path, subscribers) as broker:
        await broker.accept("ns/b", EVENT, [(b"traceparent", b"x")])
        _, (url, headers, _) = await subscribers.until(2)
        figures = await idle(broker)
    assert (url, headers["ce-id"], headers["traceparent"]) == ("http://b", "2", "x")
    assert [figures["triggers"][name]["delivered"] for name in ("ns/a", "ns/b")] == [1, 1]


async def test_a_loop_of_replies_ends(tmp_path: Path) -> None:
    """The broker refuses a reply whose TTL is spent, so a subscriber that echoes events does not loop forever."""

    class Echo(Subscribers):
        async def post(self, url: str, **rest: Any) -> Answer:
            await super().post(url, **rest)
            return event_answer(id=str(len(self.posts)))

    no_retry = Trigger("ns/a", "ns/b", "http://a", (), Policy(0))
    async with running(tmp_path, subscribers := Echo(), [no_retry]) as broker:
        await broker.accept("ns/b", EVENT.extended(knativebrokerttl=6), [])
        figures = await idle(broker)
    assert len(subscribers.posts) == 5
    assert figures["dead_letters"][0]["failure"]["reason"] == "the reply is refused: its knativebrokerttl is spent"


async def test_a_reply_with_too_many_attributes_is_refused(tmp_path: Path) -> None:
    """The reply must leave room for the broker's attributes; the dead letter names the limit."""
    long = event_answer(type="b", **{f"x{number}": "a" for number in range(55)})
    async with running(tmp_path, Subscribers([long])) as broker:
        await broker.accept("ns/b", EVENT, [])
        (letter,) = (await idle(broker))["dead_letters"]
    assert "the reply is refused: an event must have at most 58 attributes" in letter["failure"]["reason"]


async def test_replies_wait_while_the_queue_is_full(tmp_path: Path) -> None:
    """When the queue holds twice its limit, a delivery that brings a reply is retried later."""
    emptied = asyncio.Event()

    class Slow(Subscribers):
        async def post(self, url: str, **rest: Any) -> Answer:
            await super().post(url, **rest)
            if url == "http://b":
                await emptied.wait()
                return answer()
            if len(self.posts) > 2:
                emptied.set()
                while (await broker.figures(letters=0))["waiting"] > 1:
                    await asyncio.sleep(0)
            return event_answer(type="b", id="2")

    queue = Queue(tmp_path / "q.db", ["ns/a", "ns/b"])
    for name in ("ns/a", "ns/b"):
        await queue.add(stored(), [name])
    await queue.close()
    async with running(tmp_path, subscribers := Slow(), limit=1) as broker:
        await subscribers.until(4)
        figures = await idle(broker)
    assert (figures["triggers"]["ns/a"]["failed"], figures["triggers"]["ns/b"]["delivered"]) == (1, 2)
