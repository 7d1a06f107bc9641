"""The trace of an event through the broker and all functions."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chassis.wire.cloudevents import Event
from knbroker.broker import Broker
from knbroker.client import DeliveryClient
from knbroker.queue import Queue
from kubeyaml.eventing import Routing, Trigger
from tests.chassis.telemetry.test_tracing import CALLER, TREE, TracedPipeline

REQUESTED = Event(
    {
        "specversion": "1.0",
        "id": "1",
        "source": "/s",
        "type": "dev.recsys.recommendation.requested.v1",
        "datacontenttype": "application/json",
    },
    b'{"user_id":"zoe"}',
)


@contextlib.asynccontextmanager
async def sink() -> AsyncIterator[tuple[str, asyncio.Queue[dict[str, str]]]]:
    """Yield the URL of a subscriber and a queue of the headers it receives."""
    received: asyncio.Queue[dict[str, str]] = asyncio.Queue()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:-2])
        await reader.readexactly(int(fields["content-length"]))
        writer.write(b"HTTP/1.1 202 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()
        received.put_nowait(fields)

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", received
    server.close()


@pytest.mark.may_block
@pytest.mark.parametrize("by_header", [True, False])
async def test_a_trace_continues_through_the_broker(by_header: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a parameter
    """
    The trace leads from the sender to recommend, extract_features and rank_items, and the reply continues it.

    The context arrives with the request, or in the event (the distributed tracing extension).
    """
    context = CALLER[1].decode()
    async with TracedPipeline(0.0).pipeline() as traced, sink() as (url, received):
        triggers = [
            Trigger("d/requests", "d/b", f"http://127.0.0.1:{traced.port}/", [{"suffix": {"type": "requested.v1"}}]),
            Trigger("d/answers", "d/b", url, [{"suffix": {"type": "completed.v1"}}]),
        ]
        queue, client = Queue(tmp_path / "q.db", ["d/requests", "d/answers"]), DeliveryClient(limit_bytes=100_000)
        broker = Broker(Routing(("d/b",), triggers), queue, client, limit=10, at_once=2)
        delivering = asyncio.create_task(broker.run())
        event = REQUESTED if by_header else REQUESTED.extended(traceparent=context)
        await broker.accept("d/b", event, [CALLER] if by_header else [])
        reply = await received.get()
        delivering.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await delivering
        await client.aclose()
        await queue.close()
        assert traced.tree() == {"recommend/recommend": None, **TREE}
        (root,) = [span for span in traced.exporter.get_finished_spans() if span.name == "recommend"]
    assert f"{root.context.trace_id:032x}" == context.split("-")[1]
    assert reply["ce-type"] == "dev.recsys.recommendation.completed.v1"
    assert reply["traceparent"] == f"00-{root.context.trace_id:032x}-{root.context.span_id:016x}-01"
