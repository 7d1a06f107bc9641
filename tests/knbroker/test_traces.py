"""The trace of an event reaches its subscriber, and the sender's headers as far as they fit."""

import asyncio
from pathlib import Path

import pytest

from knbroker.broker import Broker
from knbroker.client import DeliveryClient
from knbroker.queue import Queue
from kubeyaml.eventing import DeliverySpec as Policy
from kubeyaml.eventing import Routing, Trigger
from tests.knbroker.brokers import EVENT, TO_A, TRACE, idle, running
from tests.knbroker.subscribers import Subscribers


async def test_the_trace_of_an_event_is_passed_to_its_delivery(tmp_path: Path) -> None:
    """A delivery gets the traceparent header from the event's extension when the sender sets no header."""
    subscribers = Subscribers()
    async with running(tmp_path, subscribers) as broker:
        await broker.accept("ns/b", EVENT.extended(traceparent=TRACE), [])
        ((_, headers, _),) = await subscribers.until(1)
    assert headers["traceparent"] == headers["ce-traceparent"] == TRACE


@pytest.mark.parametrize("structured", [False, True])
async def test_an_invalid_trace_attribute_does_not_prevent_delivery(structured: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """An invalid traceparent reaches the subscriber and the sink as an attribute, not as a header."""
    heads = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        await reader.readexactly(int(heads[-1].split(b"content-length: ")[1].split()[0]))
        writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % (202 if heads[1:] else 400))
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        policy = Policy(0, structured=structured)
        trigger = Trigger("ns/a", "ns/b", url, (), policy, dead_letter_sink=f"{url}sink")
        async with running(tmp_path, DeliveryClient(limit_bytes=10), [trigger]) as broker:
            await broker.accept("ns/b", EVENT.extended(traceparent="00-€", tracestate="€"), [])
            figures = await idle(broker)
    assert figures["triggers"]["ns/a"]["delivered"] == 1
    assert heads[1].startswith(b"POST /sink ")
    assert [b"\r\ntraceparent: " in head for head in heads] == [False, False]
    assert [b"\r\nce-traceparent: 00-%E2%82%AC\r\n" in head for head in heads] == [not structured, True]


async def test_a_tracestate_without_a_traceparent_is_replaced(tmp_path: Path) -> None:
    """A tracestate header without a traceparent is of another trace, so the event's own values are used."""
    queue = Queue(tmp_path / "q.db", ["ns/a"])
    broker = Broker(Routing(("ns/b",), [TO_A]), queue, Subscribers(), limit=1, at_once=1)
    event = EVENT.extended(traceparent=TRACE, tracestate="y=2")
    await broker.accept("ns/b", event, [(b"tracestate", b"x=1"), (b"x-request-id", b"7")])
    assert queue.read(1).headers == [("x-request-id", "7"), ("traceparent", TRACE), ("tracestate", "y=2")]
    await queue.close()


async def test_headers_that_do_not_fit_are_dropped(tmp_path: Path) -> None:
    """The broker drops excess headers instead of the event, because a delivery has room for only some."""
    queue = Queue(tmp_path / "q.db", ["ns/a"])
    broker = Broker(Routing(("ns/b",), [TO_A]), queue, Subscribers(), limit=10, at_once=1)
    await broker.accept("ns/b", EVENT, [(b"knative-%d" % number, b"x") for number in range(50)])
    assert len(queue.read(1).headers) == 16
    await broker.accept("ns/b", EVENT, [(b"x-request-id", b"7"), (b"knative-a", b"x" * 9000)])
    assert queue.read(2).headers == [("x-request-id", "7")]
    await queue.close()
