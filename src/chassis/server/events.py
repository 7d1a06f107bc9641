"""
Route CloudEvents to the code that handles their types.

An accepted event is answered with an empty 202, or with 200 and an event if its handler replies. A broker takes any
other answer with a 2xx for a failed delivery, and sends the event again. An event that can never be accepted gets a 4xx
that no broker retries. An event that may be accepted later gets a 503.
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
from chassis.wire.problems import Fault, InvalidRequestError, Rejected, ServingError

T = TypeVar("T")

ACCEPTED = Reply(b"", status=202)

_CARRIED = ("traceparent", "tracestate", "correlationid", "partitionkey")


@dataclass(frozen=True)
class EventRoute(Generic[T]):
    """
    The handling of one type of event.

    Attributes:
        read: Returns the content of an event; raises `Rejected` if the event is malformed.
        act: Handles the content of an event; returns the reply, or None for no reply.
    """

    read: Callable[[CloudEvent], T]
    act: Callable[[T, CloudEvent, Call], Awaitable[CloudEvent | None]]


EventRoutes = Mapping[str, EventRoute[Any]]


def data_as(decoder: Decoder[T]) -> Callable[[CloudEvent], T]:
    """Return a function that reads the data of an event and ignores its attributes."""
    return lambda event: decoder.decode(event.data)


class EventRouter:
    """
    Handles each event by the route of its type.

    Args:
        routes: The routes, by event type.
    """

    def __init__(self, routes: EventRoutes) -> None:
        self._routes = routes

    async def __call__(self, call: Call) -> Reply:
        """
        Handle the events of a request. If one event is malformed, handle none of them.

        Raises:
            ServingError: events are malformed or have an unknown type (lists all faults); or a route raised, once all
                routes have ended. A crash counts first, then an error after which a retry may succeed.
        """
        events = cloudevents.read_events(call.headers, call.body)
        contents = [self._read(events[0])] if len(events) == 1 else self._read_all(events)
        pairs = zip(contents, events, strict=True)
        acts = (self._routes[event.type].act(content, event, call) for content, event in pairs)
        replies = await asyncio.gather(*acts, return_exceptions=True)
        if errors := [reply for reply in replies if isinstance(reply, BaseException)]:
            raise max(errors, key=lambda error: error.status if isinstance(error, ServingError) else 600)
        return _write([reply for reply in replies if isinstance(reply, CloudEvent)])

    def _read(self, event: CloudEvent) -> Any:
        route = self._routes.get(event.type)
        if route is None:
            wanted = f"must be one of {', '.join(self._routes)}, not {event.type[:128]!r}"
            raise InvalidRequestError("no such event is taken here", faults=[Fault("type", wanted)])
        return route.read(event)

    def _read_all(self, events: list[CloudEvent]) -> list[Any]:
        contents, faults, refused_bytes = [], [], 0
        for index, event in enumerate(events):
            if refused_bytes > MAX_REFUSED_BYTES:
                faults.append(Fault(f"$[{index}]", NOT_READ))
                break
            try:
                contents.append(self._read(event))
            except Rejected as refusal:
                faults += _placed(refusal, f"$[{index}]")
                refused_bytes += len(event.data)
        if faults:
            raise InvalidRequestError("no event of the batch was taken", faults=faults)
        return contents


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
    Return the reply to *cause*, an event of the request *call*.

    The reply's id derives from the cause's id, so that each delivery of the cause leads to the same id. The reply
    continues the trace of *call*. All replies of a chain have the same `correlationid`: that of the first event, or the
    first event's id if it has none.
    """
    carried = {name: cause.extensions[name] for name in _CARRIED if name in cause.extensions}
    context = {name.decode(): value.decode("latin-1") for name, value in call.span.context() if name != b"baggage"}
    # A request's headers may contain any bytes; an attribute is text.
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
