"""
Traces as the rest of the code sees them: a span that is there or a stand-in that costs nothing.

Context travels as W3C Trace Context, with requests in the headers of that name, with events in the extension of that
name. Where tracing is off, or a trace is not sampled, the stand-in hands the caller's context on as it came.
"""

import os
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

RawHeaders = Sequence[tuple[bytes, bytes]]
Attributes = Mapping[str, str | int | float | bool]

TRACEPARENT, TRACESTATE = b"traceparent", b"tracestate"
_CONTEXT = (TRACEPARENT, TRACESTATE, b"baggage")
# Source: W3C Trace Context, section 3.2.
_TRACEPARENT = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_INVALID = {b"0" * 32, b"0" * 16}


class Span(Protocol):
    """A stretch of work within a trace."""

    @property
    def trace_id(self) -> str | None:
        """The trace's id where it is recorded, else None."""
        ...

    def child(self, name: str, *, attributes: Attributes | None = None) -> "Span":
        """Begin a span for a call to somebody else."""
        ...

    def record(self, name: str, *, began: float, ended: float, attributes: Attributes | None = None) -> None:
        """Add a span for something that is over; times are seconds on the monotonic clock."""
        ...

    def context(self) -> list[tuple[bytes, bytes]]:
        """Return the headers that make somebody else's work part of this span."""
        ...

    def end(self, *, status: int) -> None:
        """End the span with the HTTP *status* it led to."""
        ...


class Tracer(Protocol):
    """Begins the span of a request."""

    def begin(self, name: str, headers: RawHeaders) -> Span:
        """Return the span for a request that came with *headers*."""
        ...

    def close(self) -> None:
        """Send what has not been sent."""
        ...


class PassOn:
    """The stand-in for a span: hands the caller's context on."""

    __slots__ = ("_context", "_headers")

    trace_id = None

    def __init__(self, headers: RawHeaders) -> None:
        self._headers = headers
        self._context: list[tuple[bytes, bytes]] | None = None

    def child(self, name: str, *, attributes: Attributes | None = None) -> Span:
        """Return itself."""
        return self

    def record(self, name: str, *, began: float, ended: float, attributes: Attributes | None = None) -> None:
        """Record nothing."""

    def context(self) -> list[tuple[bytes, bytes]]:
        """Return the context headers as they came; they are looked for once, however many hops ask."""
        if self._context is None:
            self._context = [header for header in self._headers if header[0] in _CONTEXT]
        return self._context

    def end(self, *, status: int) -> None:
        """End nothing."""


class NoTracer:
    """Tracing switched off."""

    def begin(self, name: str, headers: RawHeaders) -> Span:
        """Return the stand-in."""
        return PassOn(headers)

    def close(self) -> None:
        """Nothing is left to send."""


class Parent:
    """The caller's context: ids as hexadecimal text, and whether the trace is sampled."""

    def __init__(self, trace_id: str, span_id: str, *, sampled: bool) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.sampled = sampled


def read_parent(headers: RawHeaders) -> Parent | None:
    """Return the caller's context: a request's header, else an event's extension; None without a valid one."""
    found = dict(headers)
    match = _TRACEPARENT.fullmatch(found.get(TRACEPARENT) or found.get(b"ce-traceparent") or b"")
    if not match or match[1] in _INVALID or match[2] in _INVALID:
        return None
    return Parent(match[1].decode(), match[2].decode(), sampled=bool(int(match[3], 16) & 1))


def unsampled_context(headers: RawHeaders) -> RawHeaders:
    """
    Return *headers* with a context that says "not sampled".

    Without it every hop would toss its own coin, and traces would begin in the middle.
    """
    if read_parent(headers) is not None:
        return headers
    context = b"00-%b-%b-00" % (os.urandom(16).hex().encode(), os.urandom(8).hex().encode())
    return [(TRACEPARENT, context)]


def is_sampled(parent: Parent | None, *, ratio: float, draw: Callable[[], float] = random.random) -> bool:
    """Decide at the head of a trace by *ratio*, further down as the head did."""
    return parent.sampled if parent else draw() < ratio
