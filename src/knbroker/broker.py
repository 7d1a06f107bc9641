"""Accept events, and deliver each one to the subscribers or the dead-letter sinks of its Triggers."""

import asyncio
import datetime as dt
import re
import sqlite3
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import httpx
import msgspec

from chassis.wire.cloudevents import Event
from chassis.wire.event_rules import MAX_ATTRIBUTES, MAX_HEADER_BYTES, fits_into_headers
from chassis.wire.headers import RawHeaders
from chassis.wire.problems import (
    DependencyError,
    MalformedEventError,
    NotFoundError,
    OverloadedError,
    StorageFullError,
)
from knbroker import delivery as deciding
from knbroker.client import DeliveryClient
from knbroker.delivery import FIRST_TTL, TRACEPARENT, Delivery, DeliveryRequest, Failure, Stored
from knbroker.erasures import erasure_by
from knbroker.queue import DeadLetterChoice, DiscardedError, NoRoomError, Queue
from knbroker.topics import Topic
from kubeyaml.eventing import Routing, Trigger
from kubeyaml.filters import every
from localkn.errors import RefusedError

_TTL: Final = "knativebrokerttl"
# Knative sets no limit; no Knative Service may take longer than this.
_LONGEST_S: Final = 600.0
_DISK_PAUSE_S: Final = 1.0
# A delivery has headers of the sender, of the attributes and of the broker. Together they must fit into the limits of
# Envoy (100 headers) and of the functions (64 KiB).
_PASSED_ON_COUNT: Final = 16
_PASSED_ON_CHARACTERS: Final = 8192
_SHOWN: Final = 128
# The broker adds the time of arrival, and for a dead-letter sink the TTL and three attributes of the failure.
_SPARE_ATTRIBUTES: Final = 6
_SPARE_BYTES: Final = 4096
_NO_SPARE: Final = (
    f"an event must have at most {MAX_ATTRIBUTES - _SPARE_ATTRIBUTES} attributes, and {MAX_HEADER_BYTES - _SPARE_BYTES}"
    " bytes of them as headers: the broker adds attributes"
)
# The headers that Knative passes on, and the trace context, which Knative passes on through its own tracing.
_PASSED_ON: Final = re.compile(r"x-request-id|traceparent|tracestate|knative-.*|x-b3-.*")


class Broker:
    """
    Run all Brokers of a platform and their Triggers.

    Args:
        routing: The Brokers and Triggers.
        queue: Stores events until they are delivered.
        client: Posts events.
        limit: Most deliveries that may wait. Above it, the broker refuses events with 503, and replies above twice it.
        at_once: Most deliveries of one Trigger at a time.
    """

    def __init__(self, routing: Routing, queue: Queue, client: DeliveryClient, *, limit: int, at_once: int) -> None:
        self._queue, self._client, self._limit, self._at_once = queue, client, limit, at_once
        self._triggers = {trigger.name: trigger for trigger in routing.triggers}
        self._filters = {
            broker: [(trigger.name, every(trigger.filters)) for trigger in routing.triggers if trigger.broker == broker]
            for broker in routing.brokers
        }
        self._erasing = routing.erasing
        self._due: dict[str, asyncio.Queue[Delivery]] = {name: asyncio.Queue() for name in self._triggers}
        self._size = self._under_way = self._unwanted = 0

    async def accept(self, broker: str, event: Event, headers: RawHeaders) -> None:
        """
        Accept an event. When this returns, the event is durable.

        Raises:
            ServingError: The event is refused, and no part of it is stored.
        """
        if broker not in self._filters:
            raise NotFoundError(f"there is no Broker {broker[:_SHOWN]}")
        given = str(event.attributes.get(_TTL, ""))
        ttl = int(given) - 1 if re.fullmatch(r"-?\d{1,9}", given) else FIRST_TTL
        if ttl < 1:
            raise MalformedEventError(f"{_TTL} is spent")
        if not _leaves_room(event):
            raise MalformedEventError(_NO_SPARE)
        if self._size >= self._limit:
            raise OverloadedError("the queue is full", retry_after_s=1.0)
        fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        passed_on = _within_limits([(name, value) for name, value in fields if _PASSED_ON.fullmatch(name)])
        if all(name != TRACEPARENT for name, _ in passed_on):
            passed_on = deciding.in_trace_of(event, passed_on)
        try:
            await self._take_in(Stored(broker, event, ttl, passed_on))
        except NoRoomError as error:
            raise StorageFullError("the broker's disk is full", retry_after_s=1.0) from error
        except sqlite3.Error as error:
            raise DependencyError(f"the queue cannot be written: {error}", retry_after_s=1.0) from error

    async def run(self) -> None:
        """Deliver until cancelled, beginning with the deliveries that an earlier process left."""
        left, now = self._queue.pending(), time.monotonic()
        self._take_on([deciding.resumed(each, self._triggers[each.trigger], now=now) for each in left])
        async with asyncio.TaskGroup() as workers:
            for due in self._due.values():
                for _ in range(self._at_once):
                    workers.create_task(self._work(due))

    async def revive(self, choice: DeadLetterChoice) -> dict[str, Any]:
        """
        Redeliver the chosen dead letters; return their number, and the ids that match no dead letter.

        Raises:
            RefusedError: An id has several sources and *choice* names none of them, or the queue cannot be written.
        """
        try:
            sources = await self._queue.sources(choice) if choice.ids else {}
            for event_id, several in sources.items():
                if len(several) > 1:
                    raise RefusedError(f"{event_id}: dead letters of {', '.join(several)}; say which with --source")
            revived = await self._queue.revive(choice)
        except sqlite3.Error as error:
            raise RefusedError(f"the queue cannot be written: {error}; nothing was redriven") from error
        self._take_on(revived)
        return {"redriven": len(revived), "unknown": [each for each in choice.ids or () if each not in sources]}

    async def discard(self, topic: Topic) -> dict[str, Any]:
        """
        Delete the events about *topic*, and return their number. Deliveries under way end without a retry.

        Later events about *topic* are delivered. Those that become dead letters are deleted within seconds.

        Raises:
            RefusedError: The queue cannot be written.
        """
        try:
            return {"discarded": await self._queue.discard(topic)}
        except sqlite3.Error as error:
            raise RefusedError(f"the queue cannot be rewritten: {error}; free some disk space and try again") from error

    async def keep(self, topic: Topic) -> dict[str, Any]:
        """
        Keep dead letters about *topic* again, after `discard`.

        Raises:
            RefusedError: The queue cannot be written.
        """
        try:
            await self._queue.keep(topic)
        except sqlite3.Error as error:
            raise RefusedError(f"the queue cannot be written: {error}; free some disk space and try again") from error
        return {}

    async def figures(self, *, letters: int) -> dict[str, Any]:
        """
        Describe the queues as plain data, with up to *letters* of the newest dead letters.

        Counts cover the life of the queue. `unwanted` covers this process: events that matched no Trigger.
        """
        load = {"waiting": self._size, "limit": self._limit, "under_way": self._under_way, "unwanted": self._unwanted}
        load |= {"has_room": self._queue.has_room}
        known = await self._queue.figures(letters=letters)
        triggers = {
            name: {"subscriber": trigger.subscriber, "dead_letter_sink": trigger.dead_letter_sink, **known.of(name)}
            for name, trigger in self._triggers.items()
        }
        brokers = {name: known.counts.get(("accepted", name), 0) for name in self._filters}
        return {**load, "brokers": brokers, "triggers": triggers, "dead_letters": known.dead_letters}

    def _take_on(self, deliveries: Sequence[Delivery]) -> None:
        self._size += len(deliveries)
        for each in deliveries:
            self._plan(each)

    def _plan(self, delivery: Delivery) -> None:
        due, wait_s = self._due[delivery.trigger], delivery.due_at - time.monotonic()
        if wait_s > 0:
            asyncio.get_running_loop().call_later(wait_s, due.put_nowait, delivery)
        else:
            due.put_nowait(delivery)

    async def _take_in(self, stored: Stored, *, cause: Delivery | None = None) -> None:
        attributes = {name: value for name, value in stored.event.attributes.items() if name != _TTL}
        arrived = Event({**attributes, "knativearrivaltime": dt.datetime.now(dt.UTC).isoformat()}, stored.event.data)
        names = [name for name, passes in self._filters[stored.broker] if passes(arrived.attributes)]
        if names or cause:
            self._take_on(await self._queue.add(msgspec.structs.replace(stored, event=arrived), names, cause=cause))
        if not names:
            self._unwanted += 1

    async def _work(self, due: asyncio.Queue[Delivery]) -> None:
        while True:
            present = await due.get()
            self._under_way += 1
            following = await self._attempt(present)
            self._under_way -= 1
            if following is None:
                self._size -= 1
            else:
                self._plan(following)

    async def _attempt(self, delivery: Delivery) -> Delivery | None:
        """Try to deliver once; return the next delivery, or None if the event is delivered or dead."""
        trigger = self._triggers[delivery.trigger]
        try:
            outcome = await self._deliver(delivery, trigger)
        except sqlite3.Error as error:
            print(f"the queue cannot be read: {error}", file=sys.stderr, flush=True)
            return msgspec.structs.replace(delivery, due_at=time.monotonic() + _DISK_PAUSE_S)
        if outcome is None:
            return None
        following = deciding.after(outcome, delivery, trigger, now=time.monotonic())
        await _record(lambda: self._queue.put(following))
        return None if following.is_dead else following

    async def _deliver(self, delivery: Delivery, trigger: Trigger) -> Failure | None:
        """Post the event and record the success; return the failure, if any."""
        try:
            stored = self._queue.read(delivery.event)
            outcome = await self._post(deciding.compose(stored, delivery, trigger), trigger)
            if isinstance(outcome, Event):
                return await self._reply(outcome, stored, delivery)
            if outcome is None:
                erased = erasure_by(stored.event, self._erasing)
                await _record(lambda: self._queue.end(delivery, erased=erased))
        except sqlite3.Error:
            raise
        except DiscardedError:
            return None
        except Exception as error:  # noqa: BLE001 - a failure of one event must not stop the others
            # The failure counts as an attempt. If it ended the process, each restart would repeat it.
            print(f"event {delivery.event} cannot be delivered to {trigger.name}:", file=sys.stderr)
            traceback.print_exception(error)
            return deciding.unanswered(deciding.destination(delivery, trigger), error)
        return outcome

    async def _post(self, request: DeliveryRequest, trigger: Trigger) -> Event | Failure | None:
        try:
            timeout_s = trigger.delivery.timeout_s or _LONGEST_S
            answer = await self._client.post(
                request.url, headers=request.headers, body=request.body, timeout_s=timeout_s
            )
        except (httpx.TransportError, httpx.InvalidURL, ValueError) as error:
            return deciding.unanswered(request.url, error)
        return deciding.judge(request, answer.status, answer.headers, answer.body)

    async def _reply(self, reply: Event, stored: Stored, delivery: Delivery) -> Failure | None:
        """Accept a reply in its Broker, and end the delivery that returned it in the same transaction."""
        # If the event was discarded during its delivery, this raises: the reply may have the same topic.
        self._queue.read(delivery.event)
        if stored.ttl <= 1:
            return deciding.refused_reply(stored, 400, "its knativebrokerttl is spent")
        if not _leaves_room(reply):
            return deciding.refused_reply(stored, 400, _NO_SPARE)
        if self._size >= 2 * self._limit:
            return deciding.refused_reply(stored, 503, "the queue is full")
        try:
            await _record(lambda: self._take_in(deciding.reply_of(stored, reply), cause=delivery))
        except NoRoomError:
            return deciding.refused_reply(stored, 507, "the disk is full")
        return None


def _leaves_room(event: Event) -> bool:
    """Tell whether the event is within the limits of a subscriber after the broker has added its attributes."""
    is_short = fits_into_headers(event.attributes, MAX_HEADER_BYTES - _SPARE_BYTES)
    return is_short and len(event.attributes) <= MAX_ATTRIBUTES - _SPARE_ATTRIBUTES


def _within_limits(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the first of *headers*, up to the limits, and drop the others: an event is not refused for them."""
    kept: list[tuple[str, str]] = []
    room = _PASSED_ON_CHARACTERS
    for name, value in headers[:_PASSED_ON_COUNT]:
        room -= len(name) + len(value)
        if room < 0:
            break
        kept.append((name, value))
    return kept


async def _record(write: Callable[[], Awaitable[None]]) -> None:
    """
    Call *write*, and repeat it until the disk accepts it.

    The subscriber has the event already, so posting it a second time would not help. A worker that waits here takes no
    other delivery, so at most `at_once` deliveries of a Trigger are unrecorded.
    """
    is_told = False
    while True:
        try:
            return await write()
        except sqlite3.Error as error:
            if not is_told:
                print(f"the queue cannot be written, trying again: {error}", file=sys.stderr, flush=True)
                is_told = True
            await asyncio.sleep(_DISK_PAUSE_S)
