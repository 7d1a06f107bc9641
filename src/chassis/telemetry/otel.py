"""Record spans with OpenTelemetry and send them by OTLP. The module is imported only if tracing is configured."""

import time
from collections.abc import Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from chassis.telemetry.tracing import (
    TRACEPARENT,
    Attributes,
    Parent,
    PassOn,
    Span,
    is_sampled,
    read_parent,
    unsampled_context,
)
from chassis.wire.headers import RawHeaders

# OpenTelemetry's timestamps are wall-clock times; the project measures with the monotonic clock.
_WALL_NS = time.time_ns() - time.monotonic_ns()


class OtelTracer:
    """
    Records the sampled share of requests.

    Args:
        exporter: Sends finished spans in the background.
        ratio: Share of recorded traces among those that begin here. Other traces follow their parent's decision.
        resource: Attributes of this instance, for every span.
        processor: Passes spans to the exporter; tests use another one.
    """

    def __init__(
        self, exporter: SpanExporter, *, ratio: float, resource: Attributes, processor: Any = BatchSpanProcessor
    ) -> None:
        self._ratio = ratio
        self._provider = TracerProvider(resource=Resource(dict(resource)), shutdown_on_exit=False)
        self._provider.add_span_processor(processor(exporter))
        self._tracer = self._provider.get_tracer("recsys")

    def begin(self, name: str, headers: RawHeaders) -> Span:
        """Return a recorded span, or a `PassOn` if the request is not sampled."""
        parent = read_parent(headers)
        if not is_sampled(parent, ratio=self._ratio):
            return PassOn(unsampled_context(headers))
        context = trace.set_span_in_context(NonRecordingSpan(_span_context(parent))) if parent else None
        return RecordedSpan(self._tracer, self._tracer.start_span(name, context, SpanKind.SERVER))

    def close(self) -> None:
        """Send the spans that have not been sent."""
        self._provider.shutdown()


class RecordedSpan:
    """A span of OpenTelemetry with the interface `Span`."""

    def __init__(self, tracer: trace.Tracer, span: trace.Span) -> None:
        self._tracer = tracer
        self._span = span

    @property
    def trace_id(self) -> str | None:
        """The trace's id."""
        return format(self._span.get_span_context().trace_id, "032x")

    def child(self, name: str) -> Span:
        """Begin a span for a call to another process."""
        return RecordedSpan(self._tracer, self._tracer.start_span(name, self._context(), SpanKind.CLIENT))

    def record(self, name: str, *, began: float, ended: float, attributes: Attributes | None = None) -> None:
        """Add a span for work that has ended."""
        span = self._tracer.start_span(name, self._context(), SpanKind.INTERNAL, attributes, start_time=_wall_ns(began))
        span.end(_wall_ns(ended))

    def begin_shared(self, name: str, spans: Sequence[Span]) -> Span:
        """Begin the root span of another trace, linked to those of *spans* that are recorded."""
        links = [Link(span.span_context) for span in spans if isinstance(span, RecordedSpan)]
        started = self._tracer.start_span(name, Context(), SpanKind.INTERNAL, {"group.size": len(spans)}, links)
        return RecordedSpan(self._tracer, started)

    @property
    def span_context(self) -> SpanContext:
        """The span's ids, as OpenTelemetry holds them."""
        return self._span.get_span_context()

    def context(self) -> list[tuple[bytes, bytes]]:
        """Return the headers that make another process's work part of this span."""
        ids = self._span.get_span_context()
        return [(TRACEPARENT, b"00-%032x-%016x-%02x" % (ids.trace_id, ids.span_id, ids.trace_flags))]

    def end(self, *, status: int) -> None:
        """End the span with the HTTP *status* it led to; 0 for a call without an answer."""
        self._span.set_attribute("http.response.status_code", status)
        if status >= 500 or not status:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()

    def _context(self) -> Any:
        return trace.set_span_in_context(self._span)


def make_tracer(endpoint: str, *, ratio: float, resource: Attributes) -> OtelTracer:
    """Return a tracer that sends to the OTLP collector at *endpoint*, over HTTP."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - slow to import

    exporter = OTLPSpanExporter(endpoint=endpoint.rstrip("/") + "/v1/traces")
    return OtelTracer(exporter, ratio=ratio, resource=resource)


def _span_context(parent: Parent) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT)
    return SpanContext(int(parent.trace_id, 16), int(parent.span_id, 16), is_remote=True, trace_flags=flags)


def _wall_ns(monotonic_s: float) -> int:
    return int(monotonic_s * 1e9) + _WALL_NS
