"""
Tracing as the rest of the code sees it: spans, recorded or not.

The context travels as W3C Trace Context, in a request's headers or in an event's extension. If tracing is off or a trace
is not sampled, `PassOn` takes the place of a span. It records nothing and passes the caller's context on.
"""

import os
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from chassis.wire.headers import RawHeaders

Attributes = Mapping[str, str | int | float | bool]

TRACEPARENT, TRACESTATE = b"traceparent", b"tracestate"
_EVENT_TRACEPARENT = b"ce-traceparent"
_BAGGAGE = b"baggage"
# Source: W3C Trace Context, section 3.3.1.5, and W3C Baggage, section 3.3.2.
_TRACESTATE_BYTES, _TRACESTATE_MEMBERS = 512, 32
_BAGGAGE_BYTES, _BAGGAGE_MEMBERS = 8192, 64
_PRINTABLE = re.compile(rb"[\t\x20-\x7e]+")
# Source: W3C Trace Context, section 3.2.
_TRACEPARENT = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_INVALID = {b"0" * 32, b"0" * 16}


class Span(Protocol):
    """A period of work within a trace."""

    @property
    def trace_id(self) -> str | None:
        """The trace's id if the trace is recorded, else None."""
        ...

    def child(self, name: str) -> "Span":
        """Begin a span for a call to another process."""
        ...

    def record(self, name: str, *, began: float, ended: float, attributes: Attributes | None = None) -> None:
        """Add a span for work that has ended; times are seconds on the monotonic clock."""
        ...

    def begin_shared(self, name: str, spans: Sequence["Span"]) -> "Span":
        """Begin the root span of another trace, for work done once for all of *spans*; see `begin_shared`."""
        ...

    def context(self) -> list[tuple[bytes, bytes]]:
        """Return the headers that make another process's work part of this span."""
        ...

    def end(self, *, status: int) -> None:
        """End the span with the HTTP *status* it led to."""
        ...


class Tracer(Protocol):
    """Begins the span of a request."""

    def begin(self, name: str, headers: RawHeaders) -> Span:
        """Return the span of a request with *headers*."""
        ...

    def close(self) -> None:
        """Send the spans that have not been sent."""
        ...


class PassOn:
    """A span that records nothing and passes the caller's context on."""

    __slots__ = ("_context", "_headers")

    trace_id = None

    def __init__(self, headers: RawHeaders) -> None:
        self._headers = headers
        self._context: list[tuple[bytes, bytes]] | None = None

    def child(self, name: str) -> Span:
        """Return itself."""
        return self

    def record(self, name: str, *, began: float, ended: float, attributes: Attributes | None = None) -> None:
        """Record nothing."""

    def begin_shared(self, name: str, spans: Sequence[Span]) -> Span:
        """Return itself."""
        return self

    def context(self) -> list[tuple[bytes, bytes]]:
        """Return the caller's context within W3C's limits; see `forwarded_context`. Reads the headers once."""
        if self._context is None:
            self._context = forwarded_context(self._headers)
        return self._context

    def end(self, *, status: int) -> None:
        """End nothing."""


class NoTracer:
    """A tracer for when tracing is off."""

    def begin(self, name: str, headers: RawHeaders) -> Span:
        """Return a span that records nothing."""
        return PassOn(headers)

    def close(self) -> None:
        """Send nothing."""


class Parent(NamedTuple):
    """The caller's context: ids as hexadecimal text, and whether the trace is sampled."""

    trace_id: str
    span_id: str
    sampled: bool


def read_parent(headers: RawHeaders) -> Parent | None:
    """Return the caller's context: a request's header, else an event's extension; None without a valid one."""
    value = _read_traceparent(headers)
    if value is None:
        return None
    return Parent(value[3:35].decode(), value[36:52].decode(), sampled=bool(int(value[53:], 16) & 1))


def _read_traceparent(headers: RawHeaders) -> bytes | None:
    for wanted in (TRACEPARENT, _EVENT_TRACEPARENT):
        given = [value for name, value in headers if name == wanted]
        if given:
            match = _TRACEPARENT.fullmatch(given[0])
            is_valid = len(given) == 1 and match and match[1] not in _INVALID and match[2] not in _INVALID
            return given[0] if is_valid else None
    return None


def forwarded_context(headers: RawHeaders) -> list[tuple[bytes, bytes]]:
    """
    Return the context of *headers*, each kind in one header and within the limits that W3C sets.

    The first members that fit are kept whole, the others are dropped. Otherwise a caller could send a head that fits at
    this door but, with the headers that a hop adds, not at the next one. A `tracestate` without a valid `traceparent`
    is dropped, as the specification demands.
    """
    traceparent = _read_traceparent(headers)
    context = [] if traceparent is None else [(TRACEPARENT, traceparent)]
    states = [value for name, value in headers if name == TRACESTATE] if context else []
    if states and (state := _fit(states, most_bytes=_TRACESTATE_BYTES, most_members=_TRACESTATE_MEMBERS)):
        context.append((TRACESTATE, state))
    baggage = [value for name, value in headers if name == _BAGGAGE]
    if baggage and (kept := _fit(baggage, most_bytes=_BAGGAGE_BYTES, most_members=_BAGGAGE_MEMBERS)):
        context.append((_BAGGAGE, kept))
    return context


def _fit(lines: Sequence[bytes], *, most_bytes: int, most_members: int) -> bytes:
    """Return the first members of the list in *lines* that fit; members with unprintable bytes are left out."""
    kept: list[bytes] = []
    left = most_bytes
    for member in (each.strip(b" \t") for each in b",".join(lines).split(b",")):
        if not _PRINTABLE.fullmatch(member):
            continue
        left -= len(member) + bool(kept)
        if left < 0 or len(kept) == most_members:
            break
        kept.append(member)
    return b",".join(kept)


def unsampled_context(headers: RawHeaders) -> RawHeaders:
    """
    Return *headers* with a context that says "not sampled".

    Without a context, each hop would decide again whether to sample, and traces would begin at a hop.
    """
    if read_parent(headers) is not None:
        return headers
    context = b"00-%b-%b-00" % (os.urandom(16).hex().encode(), os.urandom(8).hex().encode())
    return [(TRACEPARENT, context)]


def begin_shared(name: str, spans: Sequence[Span]) -> Span:
    """
    Begin the span of work done once for all of *spans*.

    The span is the root of a new trace, because one caller's context must not speak for the other callers. The trace is
    recorded if any of *spans* is recorded, and has a link to each recorded span.
    """
    recorded = next((span for span in spans if span.trace_id), None)
    if recorded is not None:
        return recorded.begin_shared(name, spans)
    has_context = any(span.context() for span in spans)
    return PassOn(unsampled_context(()) if has_context else ())


def is_sampled(parent: Parent | None, *, ratio: float, draw: Callable[[], float] = random.random) -> bool:
    """Decide by *ratio* at the beginning of a trace, and as *parent* says within the trace."""
    return parent.sampled if parent else draw() < ratio
