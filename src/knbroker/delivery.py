"""
Decide on deliveries as Knative's dispatcher does: requests, answers, retries, dead letters.

This module only decides; `broker` carries the decisions out. Times are seconds of a monotonic clock.

Source: knative/eventing pkg/kncloudevents (retries.go, event_dispatcher.go, attributes), pkg/broker (ttl.go, filter/
filter_handler.go), specs/eventing/data-plane.md; W3C Trace Context, sections 3.2 and 3.3.
"""

import base64
import datetime as dt
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Final, Literal

import msgspec
from msgspec import Struct

from chassis.transitions import advance
from chassis.wire.cloudevents import Event, explain, read, write
from chassis.wire.headers import RawHeaders
from chassis.wire.problems import Rejected
from kubeyaml.eventing import Trigger

FIRST_TTL: Final = 255
"""A reply has a TTL of one less than its cause. At 0 the broker refuses it, so that no loop lasts."""

TRACEPARENT: Final = "traceparent"
_TRACESTATE: Final = "tracestate"
_IDS: Final = "-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
# Versions after 00 may append fields.
_PARENT: Final = re.compile(f"00{_IDS}|(?!00|ff)[0-9a-f]{{2}}{_IDS}(-[!-~]*)?")
_STATE: Final = re.compile(r"[a-z0-9][a-z0-9_*/@-]{0,255}=[ -+\--<>-~]{0,255}[!-+\--<>-~]")
_STATES: Final = 32

_NO_ANSWER: Final = 500
_NO_EVENT: Final = 502
_RETRIED: Final = {404, 408, 409, 429}
# The statuses whose Retry-After counts, and the longest pause that the broker accepts from it.
_PUTS_OFF: Final = {429, 503}
_LONGEST_PAUSE_S: Final = 60.0
_ERROR_BYTES: Final = 768  # 1024 characters of base64


class Stored(Struct, frozen=True):
    """An event as the queue stores it, with the headers that each delivery passes on."""

    broker: str
    event: Event
    ttl: int
    headers: list[tuple[str, str]]


class Failure(Struct, frozen=True):
    """A failed attempt: the status of the answer (500 without an answer), its first bytes, and its Retry-After."""

    destination: str
    code: int
    data: bytes = b""
    retry_after_s: float = 0.0

    @property
    def is_passing(self) -> bool:
        """Whether a retry may succeed."""
        return self.code >= 500 or self.code in _RETRIED


DeliveryState = Literal["to subscriber", "to sink", "dead"]
DeliveryEvent = Literal["retry", "fall back", "give up", "redrive"]

TRANSITIONS: Final[Mapping[tuple[DeliveryState, DeliveryEvent], DeliveryState]] = {
    ("to subscriber", "retry"): "to subscriber",
    ("to subscriber", "fall back"): "to sink",
    ("to subscriber", "give up"): "dead",
    ("to sink", "retry"): "to sink",
    ("to sink", "give up"): "dead",
    ("dead", "redrive"): "to subscriber",
}
"""A delivery falls back to the dead-letter sink at most once. `Queue.revive` redrives dead letters."""


class Delivery(Struct, frozen=True):
    """
    The state of an event's delivery to one Trigger.

    Attributes:
        event: Its number in the queue.
        trigger: `NAMESPACE/NAME`.
        attempts: Failed attempts so far at the current destination.
        due_at: Time of the next attempt.
        failure: The subscriber's failure. If it is set, the destination is the dead-letter sink.
        is_dead: Whether the broker has stopped trying; `events redrive` starts again.
    """

    event: int
    trigger: str
    attempts: int = 0
    due_at: float = 0.0
    failure: Failure | None = None
    is_dead: bool = False

    @property
    def state(self) -> DeliveryState:
        """The destination of the next attempt, or "dead"."""
        return "dead" if self.is_dead else "to sink" if self.failure else "to subscriber"


class DeliveryRequest(Struct, frozen=True):
    """A request to send, and whether its answer may contain a reply."""

    url: str
    headers: list[tuple[str, str]]
    body: bytes
    may_reply: bool = True


def compose(stored: Stored, delivery: Delivery, trigger: Trigger) -> DeliveryRequest:
    """Return the request to the subscriber, or to the dead-letter sink with the failure as attributes."""
    headers = [*stored.headers, ("kn-namespace", trigger.name.partition("/")[0])]
    failure = delivery.failure
    if failure is None or trigger.dead_letter_sink is None:
        fields, body = write(stored.event, structured=trigger.delivery.structured)
        return DeliveryRequest(trigger.subscriber, [*headers, ("prefer", "reply"), *fields], body)
    event = stored.event.extended(
        knativebrokerttl=stored.ttl,
        knativeerrordest=failure.destination,
        knativeerrorcode=failure.code,
        knativeerrordata=base64.b64encode(failure.data).decode(),
    )
    fields, body = write(event, structured=False)
    return DeliveryRequest(trigger.dead_letter_sink, [*headers, *fields], body, may_reply=False)


def judge(request: DeliveryRequest, status: int, headers: RawHeaders, body: bytes) -> Event | Failure | None:
    """Return the reply or the failure in an answer, or None if the subscriber accepted the event without a reply."""
    if not 200 <= status <= 299:
        return Failure(request.url, status, body[:_ERROR_BYTES], _retry_after_s(headers) if status in _PUTS_OFF else 0)
    if not request.may_reply:
        return None
    try:
        reply = read(headers, body)
    except Rejected as error:
        return Failure(request.url, _NO_EVENT, f"the reply is malformed: {explain(error)}".encode()[:_ERROR_BYTES])
    if reply is None and body:
        said = b"the answer is neither empty nor an event: " + body
        return Failure(request.url, _NO_EVENT, said[:_ERROR_BYTES])
    return reply


def destination(delivery: Delivery, trigger: Trigger) -> str:
    """Return the current destination: the subscriber, or after its failure the dead-letter sink."""
    return (trigger.dead_letter_sink if delivery.failure else None) or trigger.subscriber


def unanswered(destination: str, error: Exception) -> Failure:
    """Return the failure of a request without a usable answer."""
    return Failure(destination, _NO_ANSWER, f"dispatch error: {error!r}".encode()[:_ERROR_BYTES])


def reply_of(stored: Stored, reply: Event) -> Stored:
    """Return a reply as the queue stores it: with a TTL of one less, and in the trace of the reply."""
    return Stored(stored.broker, reply, stored.ttl - 1, in_trace_of(reply, stored.headers))


def in_trace_of(event: Event, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """
    Return *headers* with the trace context of *event* (the distributed tracing extension), if it has a valid one.

    An invalid trace context remains an attribute only: an attribute may contain any text, a header may not.
    """
    parent, state = (str(event.attributes.get(name, "")) for name in (TRACEPARENT, _TRACESTATE))
    if not _PARENT.fullmatch(parent):
        return headers
    # The event's context replaces both headers: a tracestate belongs to its traceparent.
    others = [(name, value) for name, value in headers if name not in {TRACEPARENT, _TRACESTATE}]
    return [*others, (TRACEPARENT, parent), *([(_TRACESTATE, state)] if _is_state(state) else [])]


def _is_state(text: str) -> bool:
    # A single expression for the whole list would backtrack over blanks between empty members.
    members = [member.strip(" ") for member in text.split(",")]
    return len(members) <= _STATES and any(members) and all(_STATE.fullmatch(each) for each in members if each)


def refused_reply(stored: Stored, code: int, reason: str) -> Failure:
    """Return the failure of a delivery whose reply the Broker refuses."""
    return Failure(f"Broker {stored.broker}", code, f"the reply is refused: {reason}".encode())


def after(failure: Failure, delivery: Delivery, trigger: Trigger, *, now: float) -> Delivery:
    """
    Return the delivery after a failure: a retry, a delivery to the dead-letter sink, or a dead letter.

    Raises:
        IllegalTransitionError: the delivery is a dead letter, which the broker does not try.
    """
    event = _next_event(failure, delivery, trigger)
    state = advance(TRANSITIONS, delivery.state, event)
    if event == "retry":
        due_at = now + max(trigger.delivery.backoff_s(delivery.attempts), failure.retry_after_s)
        return Delivery(delivery.event, delivery.trigger, delivery.attempts + 1, due_at, delivery.failure)
    if state == "to sink":
        return Delivery(delivery.event, delivery.trigger, 0, now, failure)
    if (first := delivery.failure) is not None:
        also = f"; the dead-letter sink {failure.destination} answered {failure.code}".encode()
        failure = Failure(first.destination, first.code, first.data + also)
    return Delivery(delivery.event, delivery.trigger, delivery.attempts, now, failure, is_dead=True)


def _next_event(failure: Failure, delivery: Delivery, trigger: Trigger) -> DeliveryEvent:
    if failure.is_passing and delivery.attempts < trigger.delivery.retries:
        return "retry"
    return "fall back" if delivery.state == "to subscriber" and trigger.dead_letter_sink is not None else "give up"


def resumed(delivery: Delivery, trigger: Trigger, *, now: float) -> Delivery:
    """
    Return a delivery of an earlier process, due after the longest possible pause at the latest.

    A stored time is a wall-clock time, and that clock may have been set back since.
    """
    longest_s = max(trigger.delivery.backoff_s(delivery.attempts - 1), _LONGEST_PAUSE_S)
    return msgspec.structs.replace(delivery, due_at=min(delivery.due_at, now + longest_s))


def _retry_after_s(headers: RawHeaders) -> float:
    """Return the pause in seconds that Retry-After asks for, as seconds or as a date; 0 without one."""
    said = next((value.decode("latin-1") for name, value in headers if name == b"retry-after"), "")
    try:
        wait_s = (
            float(said) if said.isdecimal() else (parsedate_to_datetime(said) - dt.datetime.now(dt.UTC)).total_seconds()
        )
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(wait_s, 0.0), _LONGEST_PAUSE_S)
