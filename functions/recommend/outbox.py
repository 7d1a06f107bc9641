"""
Events about answers, for training and analysis.

If Knative sets K_SINK (a SinkBinding does), recommend sends a `recommendation.served.v1` event after every answer, or a
`recommendation.served.group.v1` event about several answers. It sends them in the background, so no caller waits. If the
sink cannot keep up, recommend drops answers and counts them.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import httpx
import msgspec

from chassis.background import repeating
from chassis.telemetry.instruments import Instrument, Totals
from chassis.wire import cloudevents
from chassis.wire.cloudevents import CloudEvent
from functions.recommend.recommender import Recommended, draw_exposure_id
from functions.recommend.served import AnswerColumns, Noted, Served, describe
from functions.recommend.settings import SinkSettings
from recsys import metrics
from recsys.contracts import events

T = TypeVar("T")

log = logging.getLogger("recsys.recommend")

# The most bytes of descriptions that wait.
QUEUE_BYTES = 4 * 2**20
SENDERS = 4
FLUSH_S = 1.0
_ATTEMPTS = 5
_BASE_S = 0.2
_TIMEOUT_S = 5.0
# How long a group waits for further answers, and the most bytes of them: extract_features takes bodies of 256 KiB.
_GATHER_S = 0.5
_GROUP_BYTES = 245_760
# The most answers of a part. They are described together, while the caches of the processor still hold them.
_PART = 32


class Described(msgspec.Struct, frozen=True):
    """
    A description of answers.

    Attributes:
        body: JSON: the data of an event about one answer, or a part of those of an event about a group.
        count: The number of answers.
        event: The event about one answer; None for a part.
    """

    body: bytes
    count: int
    event: CloudEvent | None = None


@dataclass
class OutboxStatistics:
    """Totals of answers since the process started."""

    sent: int = 0
    dropped: int = 0
    failed: int = 0


class Outbox:
    """
    Sends events to the sink in the background.

    Args:
        settings: The sink, and the further attributes of the events.
        source: The events' source.
        transport: Carries the events.
        sleep: Waits between attempts.
    """

    def __init__(
        self,
        settings: SinkSettings,
        *,
        source: str,
        transport: httpx.AsyncBaseTransport,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._url = httpx.URL(settings.url)
        self._extensions = settings.extensions
        self._group = settings.group
        self._source = source
        self._transport = transport
        self._sleep = sleep
        self._part = min(_PART, settings.group)
        self._noted: list[Noted] = []
        self._described: deque[Described] = deque()
        self._described_answers = self._described_bytes = self._unsent = 0
        self._gathering = asyncio.Lock()
        self._has_some, self._is_full, self._is_done = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._is_closing = False
        self.statistics = OutboxStatistics()

    def instruments(self) -> list[Instrument]:
        """Return the outbox's metrics."""
        totals = self.statistics
        return [
            Totals(
                metrics.SERVED_EVENTS,
                lambda: {("sent",): totals.sent, ("dropped",): totals.dropped, ("failed",): totals.failed},
            )
        ]

    def note(self, recommended: Recommended, *, request_id: str, took_s: float = 0.0) -> str:
        """
        Queue an answer that took *took_s* seconds, and return its id in events.

        If the queue is full, drop the answer and return "". Cost: 1 us; each 32nd call describes the answers before it, in
        about 40 us if the lists have five items.
        """
        if self._described_bytes > QUEUE_BYTES:
            self.statistics.dropped += 1
            return ""
        exposure_id, time_us = recommended.exposure_id or draw_exposure_id(), time.time_ns() // 1000
        self._noted.append(Noted(recommended, exposure_id, request_id, time_us, took_s))
        self._unsent += 1
        if len(self._noted) >= self._part:
            self._describe()
        self._has_some.set()
        return exposure_id

    def _describe(self) -> None:
        """Describe the answers noted since the last call. Describing many in a row takes half the time."""
        noted, self._noted = self._noted, []
        if self._group == 1:
            made = self._succeeding(noted, self._describe_alone)
        else:
            columns = AnswerColumns()
            self._succeeding(noted, columns.add)
            made = [Described(body, count) for body, count in columns.bodies(most_bytes=_GROUP_BYTES)]
        self._described.extend(made)
        self._described_answers += sum(each.count for each in made)
        self._described_bytes += sum(len(each.body) for each in made)
        if self._has_group():
            self._is_full.set()

    def _has_group(self) -> bool:
        return self._described_answers >= self._group or self._described_bytes >= _GROUP_BYTES

    def _describe_alone(self, noted: Noted) -> Described:
        event = make_served(noted, describe(noted), source=self._source, extensions=self._extensions)
        return Described(event.data, 1, event)

    def _succeeding(self, noted: Sequence[Noted], describe: Callable[[Noted], T]) -> list[T]:
        """Return what *describe* returns for each of *noted* that it can describe, and count the others as failed."""
        results = []
        for each in noted:
            try:
                results.append(describe(each))
            except Exception:
                # An answer that cannot be decoded must not end the request of another one, which may call this.
                self._unsent -= 1
                self._lose(1)
                log.exception("served_event_crashed", extra={"request_id": each.request_id})
        return results

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """Send events until the block ends, and then the queued ones for at most FLUSH_S."""
        async with AsyncExitStack() as senders:
            for _ in range(SENDERS):
                await senders.enter_async_context(repeating(self._send_group))
            try:
                yield
            finally:
                self._is_closing = True
                self._is_full.set()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(FLUSH_S):
                        while self._unsent:
                            self._is_done.clear()
                            await self._is_done.wait()
        self.statistics.dropped += self._described_answers + len(self._noted)

    async def _send_group(self) -> None:
        group = await self._take()
        count = sum(each.count for each in group)
        try:
            if group:
                parts = [each.body for each in group]
                event = group[0].event or make_group(parts, source=self._source, extensions=self._extensions)
                await self._send(event, count)
        finally:
            self._unsent -= count
            self._is_done.set()

    async def _take(self) -> list[Described]:
        """Wait for an answer; return descriptions of it and of those that follow soon, if events are about groups."""
        # One sender gathers at a time, so that the groups are large.
        async with self._gathering:
            while not (self._described or self._noted):
                self._has_some.clear()
                await self._has_some.wait()
            if not (self._has_group() or self._is_closing):
                self._is_full.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._is_full.wait(), _GATHER_S)
            if self._noted:
                self._describe()
            group: list[Described] = []
            answers = size = 0
            while self._described:
                following = self._described[0]
                answers, size = answers + following.count, size + len(following.body)
                if group and (answers > self._group or size > _GROUP_BYTES):
                    break
                group.append(self._described.popleft())
                self._described_answers -= following.count
                self._described_bytes -= len(following.body)
            return group

    async def _send(self, event: CloudEvent, count: int) -> None:
        for attempt in range(_ATTEMPTS):
            if attempt:
                await self._sleep(_BASE_S * 2 ** (attempt - 1))
            request = httpx.Request(
                "POST",
                self._url,
                headers=cloudevents.write_binary(event),
                content=event.data,
                extensions={"timeout": {"connect": _TIMEOUT_S, "read": _TIMEOUT_S, "pool": _TIMEOUT_S}},
            )
            try:
                response = await self._transport.handle_async_request(request)
            except httpx.TransportError:
                continue
            if response.is_success:
                self.statistics.sent += count
                return
            if response.is_client_error and response.status_code not in {404, 408, 409, 429}:
                break
        self._lose(count)

    def _lose(self, count: int) -> None:
        self.statistics.failed += count
        log.warning("served_event_lost", extra={"total": self.statistics.failed})


def make_served(noted: Noted, described: Served, *, source: str, extensions: dict[str, str]) -> CloudEvent:
    """Return the event about the answer *noted*."""
    return CloudEvent(
        id=noted.exposure_id,
        source=source,
        type=events.SERVED,
        subject=described.user_id,
        time=datetime.fromtimestamp(noted.time_us / 1e6, UTC),
        data=msgspec.json.encode(described),
        extensions=extensions,
    )


def make_group(parts: Sequence[bytes], *, source: str, extensions: dict[str, str]) -> CloudEvent:
    """Return the event about the answers that *parts* describe."""
    return CloudEvent(
        id=os.urandom(12).hex(),
        source=source,
        type=events.SERVED_GROUP,
        time=datetime.now(UTC),
        data=b'{"parts":[%b]}' % b",".join(parts),
        extensions=extensions,
    )
