"""
The door for CloudEvents, beside the one for JSON.

An accepted event is answered with an empty 202, or with 200 and an event when its handler replies: a broker takes
anything else in a 2xx for a failed delivery and sends the event again. What will never work is a 4xx that no broker
repeats, what may work later a 503.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from recsys.contracts import cloudevents
from recsys.contracts.cloudevents import CloudEvent
from recsys.contracts.problems import Fault, InvalidRequestError
from recsys.serving.call import Call, Reply

OnEvent = Callable[[CloudEvent, Call], Awaitable[CloudEvent | None]]

ACCEPTED = Reply(b"", status=202)

_CARRIED = ("traceparent", "tracestate", "correlationid", "partitionkey")


class EventDoor:
    """
    Hands events to the handlers of their types.

    Args:
        handlers: By event type.
    """

    def __init__(self, handlers: Mapping[str, OnEvent]) -> None:
        self._handlers = handlers

    async def __call__(self, call: Call) -> Reply:
        """
        Handle the events of a request: all of them, or none when one is malformed.

        Raises:
            ServingError: for a malformed event, one of another type, or what a handler raises.
        """
        events = cloudevents.read_events(call.headers, call.body)
        known = ", ".join(self._handlers)
        faults = [
            Fault(
                f"$[{index}].type" if len(events) > 1 else "type", f"must be one of {known}, not {event.type[:128]!r}"
            )
            for index, event in enumerate(events)
            if event.type not in self._handlers
        ]
        if faults:
            raise InvalidRequestError("no such event is taken here", faults=faults)
        replies = await asyncio.gather(*(self._handlers[event.type](event, call) for event in events))
        return _write([reply for reply in replies if reply is not None])


def make_reply(cause: CloudEvent, call: Call, *, type_: str, source: str, subject: str, data: bytes) -> CloudEvent:
    """
    Return the event that answers *cause*, which came with *call*.

    Its id derives from the cause's, so it is one event however often it is sent. It goes on in the trace of *call*.
    `correlationid` stays the same through a chain of replies: its first event's, or that event's id where it has none.
    """
    carried = {name: cause.extensions[name] for name in _CARRIED if name in cause.extensions}
    carried |= {name.decode(): value.decode("latin-1") for name, value in call.span.context() if name != b"baggage"}
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
