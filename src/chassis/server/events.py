"""
The door for CloudEvents, beside the one for JSON.

An accepted event is answered with an empty 202, or with 200 and an event when its handler replies: a broker takes
anything else in a 2xx for a failed delivery and sends the event again. What will never work is a 4xx that no broker
repeats, what may work later a 503.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from chassis.call import Call, Reply
from chassis.wire import cloudevents
from chassis.wire.cloudevents import CloudEvent
from chassis.wire.decoder import MAX_REFUSED_BYTES, NOT_READ, Decoder
from chassis.wire.problems import Fault, InvalidRequestError, Rejected

T = TypeVar("T")

ACCEPTED = Reply(b"", status=202)

_CARRIED = ("traceparent", "tracestate", "correlationid", "partitionkey")


@dataclass(frozen=True)
class EventRoute(Generic[T]):
    """
    What is done with the events of one type.

    Attributes:
        read: Returns what an event tells, or refuses it.
        act: Does what has to be done about it; returns the reply, None for none.
    """

    read: Callable[[CloudEvent], T]
    act: Callable[[T, CloudEvent, Call], Awaitable[CloudEvent | None]]


def data_as(decoder: Decoder[T]) -> Callable[[CloudEvent], T]:
    """Return what reads an event of which only the data matter."""
    return lambda event: decoder.decode(event.data)


class EventRouter:
    """
    Hands events to those who take their types.

    Args:
        takers: By event type.
    """

    def __init__(self, takers: Mapping[str, EventRoute[Any]]) -> None:
        self._takers = takers

    async def __call__(self, call: Call) -> Reply:
        """
        Take the events of a request: all of them, or none when one is malformed.

        Raises:
            ServingError: for malformed events or some of other types, all faults at once; or what a taker raises, when
                all of them have ended.
        """
        events = cloudevents.read_events(call.headers, call.body)
        told = [self._read(events[0])] if len(events) == 1 else self._read_all(events)
        acts = (self._takers[event.type].act(what, event, call) for what, event in zip(told, events, strict=True))
        replies = await asyncio.gather(*acts, return_exceptions=True)
        for reply in replies:
            if isinstance(reply, BaseException):
                raise reply
        return _write([reply for reply in replies if isinstance(reply, CloudEvent)])

    def _read(self, event: CloudEvent) -> Any:
        taker = self._takers.get(event.type)
        if taker is None:
            wanted = f"must be one of {', '.join(self._takers)}, not {event.type[:128]!r}"
            raise InvalidRequestError("no such event is taken here", faults=[Fault("type", wanted)])
        return taker.read(event)

    def _read_all(self, events: list[CloudEvent]) -> list[Any]:
        told, faults, refused_bytes = [], [], 0
        for index, event in enumerate(events):
            if refused_bytes > MAX_REFUSED_BYTES:
                faults.append(Fault(f"$[{index}]", NOT_READ))
                break
            try:
                told.append(self._read(event))
            except Rejected as refusal:
                faults += _placed(refusal, f"$[{index}]")
                refused_bytes += len(event.data)
        if faults:
            raise InvalidRequestError("no event of the batch was taken", faults=faults)
        return told


def _placed(refusal: Rejected, event: str) -> list[Fault]:
    """Return the faults of one event of a batch, each with its place in the batch."""
    if isinstance(refusal, InvalidRequestError):
        # "$.kind" is a place in the data, "type" an attribute.
        data = f"{event}.data"
        return [
            Fault(f"{data}{each.path[1:]}" if each.path.startswith("$") else f"{event}.{each.path}", each.detail)
            for each in refusal.faults
        ]
    return [Fault(f"{event}.data", str(refusal))]


def make_reply(cause: CloudEvent, call: Call, *, type_: str, source: str, subject: str, data: bytes) -> CloudEvent:
    """
    Return the event that answers *cause*, which came with *call*.

    Its id derives from the cause's, so it is one event however often it is sent. It goes on in the trace of *call*.
    `correlationid` stays the same through a chain of replies: its first event's, or that event's id where it has none.
    """
    carried = {name: cause.extensions[name] for name in _CARRIED if name in cause.extensions}
    context = {name.decode(): value.decode("latin-1") for name, value in call.span.context() if name != b"baggage"}
    # A request may bring anything under these names; an attribute is text.
    carried |= {name: value for name, value in context.items() if value.isascii() and value.isprintable() and value}
    return CloudEvent(
        id=cloudevents.derive_id(cause, type_),
        source=source,
        type=type_,
        subject=subject,
        data=data,
        extensions={"causationid": cause.id, "correlationid": cause.id, **carried},
    )


def _write(replies: list[CloudEvent]) -> Reply:
    if not replies:
        return ACCEPTED
    if len(replies) == 1:
        (content_type, *headers) = cloudevents.write_binary(replies[0])
        return Reply(replies[0].data, content_type=content_type[1], headers=tuple(headers))
    body = msgspec.json.encode([msgspec.Raw(cloudevents.write_structured(reply)) for reply in replies])
    return Reply(body, content_type=cloudevents.BATCH.encode())
