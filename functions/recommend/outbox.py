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
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
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

# The most answers that wait, and the most bytes of their items.
QUEUE_SIZE = 4096
QUEUE_BYTES = 16 * 2**20
SENDERS = 4
FLUSH_S = 1.0
_ATTEMPTS = 5
_BASE_S = 0.2
_TIMEOUT_S = 5.0
# How long a group waits for further answers, and the most bytes of them: extract_features takes bodies of 256 KiB.
_GATHER_S = 0.5
_GROUP_BYTES = 204_800


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
        self._waiting: deque[Noted] = deque()
        self._waiting_bytes = self._unsent = 0
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
        Queue an answer that took *took_s* seconds, and return its id in events. Never blocks.

        If the queue is full, drop the answer and return "".
        """
        if len(self._waiting) >= QUEUE_SIZE or self._waiting_bytes > QUEUE_BYTES:
            self.statistics.dropped += 1
            return ""
        exposure_id, time_us = recommended.exposure_id or draw_exposure_id(), time.time_ns() // 1000
        # A sender describes many answers in a row, which takes half the time.
        self._waiting.append(Noted(recommended, exposure_id, request_id, time_us, took_s))
        self._waiting_bytes += _size(recommended)
        self._unsent += 1
        self._has_some.set()
        if len(self._waiting) >= self._group:
            self._is_full.set()
        return exposure_id

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
        self.statistics.dropped += len(self._waiting)

    async def _send_group(self) -> None:
        group = await self._take()
        taken = len(group)
        try:
            made = list(self._make_events(group))
            # A slow sink must not hold the answers, whose bodies are longer than the events.
            group.clear()
            for event, count in made:
                await self._send(event, count)
        finally:
            self._unsent -= taken
            self._is_done.set()

    async def _take(self) -> list[Noted]:
        """Wait for an answer; return it together with those that follow soon, if events are about groups."""
        # One sender gathers at a time, so that the groups are large.
        async with self._gathering:
            while not self._waiting:
                self._has_some.clear()
                await self._has_some.wait()
            if len(self._waiting) < self._group and not self._is_closing:
                self._is_full.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._is_full.wait(), _GATHER_S)
            group = [self._waiting.popleft() for _ in range(min(self._group, len(self._waiting)))]
            self._waiting_bytes -= sum(_size(noted.recommended) for noted in group)
            return group

    def _make_events(self, noted: Sequence[Noted]) -> Iterator[tuple[CloudEvent, int]]:
        """Yield the events about *noted*, each with the number of its answers."""
        if self._group == 1:
            for each, served in self._described(noted, describe):
                yield make_served(each, served, source=self._source, extensions=self._extensions), 1
            return
        columns = AnswerColumns()
        self._described(noted, columns.add)
        for body, count in columns.bodies(most_bytes=_GROUP_BYTES):
            yield make_group(body, source=self._source, extensions=self._extensions), count

    def _described(self, noted: Sequence[Noted], describe: Callable[[Noted], T]) -> list[tuple[Noted, T]]:
        """Return those of *noted* that can be described, each with what *describe* returns, and count the others."""
        described = []
        for each in noted:
            try:
                described.append((each, describe(each)))
            except Exception:
                # An answer that cannot be decoded must not end the sender, which has further events to send.
                self._lose(1)
                log.exception("served_event_crashed", extra={"request_id": each.request_id})
        return described

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


def _size(recommended: Recommended) -> int:
    """Return the bytes of the items of an answer."""
    return memoryview(recommended.answer.recommendations).nbytes


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


def make_group(body: bytes, *, source: str, extensions: dict[str, str]) -> CloudEvent:
    """Return the event about the answers that *body* describes."""
    return CloudEvent(
        id=os.urandom(12).hex(),
        source=source,
        type=events.SERVED_GROUP,
        time=datetime.now(UTC),
        data=body,
        extensions=extensions,
    )
