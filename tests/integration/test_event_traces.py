"""The trace of an event through the broker and all functions."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from chassis.wire.cloudevents import Event
from knbroker.client import DeliveryClient
from kubeyaml.eventing import Trigger
from tests.chassis.telemetry.test_tracing import CALLER, TREE, TracedPipeline
from tests.chassis.wire.servers import read_request, serving
from tests.knbroker import brokers

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
        head, _ = await read_request(reader)
        received.put_nowait(dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:-2]))
        writer.write(b"HTTP/1.1 202 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")

    async with serving(take) as server:
        yield server.url, received


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
            Trigger("d/requests", "ns/b", f"http://127.0.0.1:{traced.port}/", [{"suffix": {"type": "requested.v1"}}]),
            Trigger("d/answers", "ns/b", url, [{"suffix": {"type": "completed.v1"}}]),
        ]
        event = REQUESTED if by_header else REQUESTED.extended(traceparent=context)
        async with (
            aclosing(DeliveryClient(limit_bytes=100_000)) as client,
            brokers.running(tmp_path, client, triggers) as broker,
        ):
            await broker.accept("ns/b", event, [CALLER] if by_header else [])
            reply = await received.get()
        assert traced.tree() == {"recommend/recommend": None, **TREE}
        (root,) = [span for span in traced.exporter.get_finished_spans() if span.name == "recommend"]
    assert f"{root.context.trace_id:032x}" == context.split("-")[1]
    assert reply["ce-type"] == "dev.recsys.recommendation.completed.v1"
    assert reply["traceparent"] == f"00-{root.context.trace_id:032x}-{root.context.span_id:016x}-01"
