"""Calls that share one request to a hop: no caller's headers speak for the other callers."""

import asyncio
from collections.abc import Sequence

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from chassis.batching.queue import BatchLimits
from chassis.call import Call, Deadline
from chassis.hop.client import HopAnswer
from chassis.receipt import Receipt
from chassis.telemetry.otel import OtelTracer
from chassis.telemetry.tracing import NoTracer, Tracer
from functions.recommend.call_batching import CallBatcher

CALLER = (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
BAGGAGE = (b"baggage", b"a=1")


class Hop:
    """A hop that records the calls it receives."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    async def __call__(self, queries: Sequence[str], *, call: Call, within_s: float) -> HopAnswer[list[str]]:
        self.calls.append(call)
        return HopAnswer(list(queries))


async def ask_together(hop: Hop, tracer: Tracer, *headers: list[tuple[bytes, bytes]]) -> None:
    batcher: CallBatcher[str, str] = CallBatcher(hop, limits=BatchLimits(10, 0.0, 100, slots=4))
    calls = [
        Call(b"", each, f"id-{number}", Receipt(0.0), Deadline.after(60), tracer.begin("recommend", each))
        for number, each in enumerate(headers)
    ]
    await asyncio.gather(*(batcher([call.request_id], call=call, within_s=5.0) for call in calls))
    for call in calls:
        call.span.end(status=200)


async def test_a_group_carries_no_callers_context():
    """The request of several callers has its own id, and neither trace nor baggage of any of them."""
    hop = Hop()
    await ask_together(hop, NoTracer(), [CALLER, BAGGAGE], [])
    (call,) = hop.calls
    assert call.request_id not in {"id-0", "id-1"}
    assert list(call.headers) == []
    (only,) = call.span.context()
    assert only[0] == b"traceparent"
    assert CALLER[1][3:35] not in only[1]


async def test_a_lone_call_carries_its_own_context():
    """The request of one caller keeps its id and its context."""
    hop = Hop()
    await ask_together(hop, NoTracer(), [CALLER, BAGGAGE])
    assert [(call.request_id, call.span.context()) for call in hop.calls] == [("id-0", [CALLER, BAGGAGE])]


async def test_a_group_has_a_trace_that_links_to_its_callers():
    """The group's span links to each recorded caller, and each caller's trace names the group's."""
    exporter, hop = InMemorySpanExporter(), Hop()
    tracer = OtelTracer(exporter, ratio=0.0, resource={}, processor=SimpleSpanProcessor)
    await ask_together(hop, tracer, [], [CALLER])
    spans = exporter.get_finished_spans()
    (group,) = (span for span in spans if span.name == "shared-call" and span.parent is None)
    (noted,) = (span for span in spans if span.name == "shared-call" and span.parent is not None)
    (request,) = (span for span in spans if span.name == "recommend")
    assert [link.context.span_id for link in group.links] == [request.context.span_id]
    assert group.context.trace_id != request.context.trace_id == noted.context.trace_id
    assert (noted.attributes or {})["group.trace_id"] == format(group.context.trace_id, "032x")
    assert hop.calls[0].span.context()[0][1].split(b"-")[1].decode() == format(group.context.trace_id, "032x")
