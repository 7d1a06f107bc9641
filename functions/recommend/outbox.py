"""
Events about answers, for training and analysis.

If Knative sets K_SINK (a SinkBinding does), recommend sends a `recommendation.served.v1` event after every answer. It
sends the event in the background, so no caller waits for it. If the sink cannot keep up, recommend drops events and
counts them.
"""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
import msgspec
from msgspec import Raw

from chassis.telemetry.instruments import Instrument, Totals
from chassis.wire import cloudevents
from chassis.wire.cloudevents import CloudEvent
from functions.recommend.recommender import RecommendAnswer, Recommended
from functions.recommend.settings import SinkSettings
from recsys import metrics
from recsys.contracts import events
from recsys.contracts.wire import Model, RankedItem

log = logging.getLogger("recsys.recommend")

QUEUE_SIZE = 1000
SENDERS = 4
FLUSH_S = 1.0
_ATTEMPTS = 5
_BASE_S = 0.2
_TIMEOUT_S = 5.0

_items = msgspec.json.Decoder(list[RankedItem])
_propensities = msgspec.json.Decoder(list[float] | None)
_model = msgspec.json.Decoder(Model | None)


class Shown(msgspec.Struct, frozen=True):
    """
    One item of an answer.

    Attributes:
        item_id: The item.
        score: The score in the answer.
        position: The position in the answer, from 1.
        propensity: The probability that the item gets this position: 1 without exploration.
    """

    item_id: str
    score: float
    position: int
    propensity: float = 1.0


@dataclass
class OutboxStatistics:
    """Totals since the process started."""

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
        self._source = source
        self._transport = transport
        self._sleep = sleep
        self._waiting: asyncio.Queue[tuple[Recommended, str, datetime]] = asyncio.Queue(QUEUE_SIZE)
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

    def note(self, recommended: Recommended, *, request_id: str) -> None:
        """Queue the event about an answer, or drop it if the queue is full. Never blocks."""
        try:
            self._waiting.put_nowait((recommended, request_id, datetime.now(UTC)))
        except asyncio.QueueFull:
            self.statistics.dropped += 1

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """Send events until the block ends, and then the queued ones for at most FLUSH_S."""
        senders = [asyncio.create_task(self._send_forever()) for _ in range(SENDERS)]
        try:
            yield
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    await self._waiting.join()
            for sender in senders:
                sender.cancel()
            await asyncio.gather(*senders, return_exceptions=True)
            self.statistics.dropped += self._waiting.qsize()

    async def _send_forever(self) -> None:
        while True:
            recommended, request_id, moment = await self._waiting.get()
            try:
                event = make_served(
                    recommended, request_id=request_id, source=self._source, moment=moment, extensions=self._extensions
                )
                await self._send(event)
            except Exception:
                # An answer that cannot be decoded must not end the sender, which has further events to send.
                self._lose()
                log.exception("served_event_crashed", extra={"request_id": request_id})
            finally:
                self._waiting.task_done()

    async def _send(self, event: CloudEvent) -> None:
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
                self.statistics.sent += 1
                return
            if response.is_client_error and response.status_code not in {404, 408, 409, 429}:
                break
        self._lose()

    def _lose(self) -> None:
        self.statistics.failed += 1
        log.warning("served_event_lost", extra={"total": self.statistics.failed})


def make_served(
    recommended: Recommended, *, request_id: str, source: str, moment: datetime, extensions: dict[str, str]
) -> CloudEvent:
    """Return the event about *recommended*."""
    answer: RecommendAnswer = recommended.answer
    ranked = _items.decode(answer.recommendations)
    propensities = _propensities.decode(recommended.propensities) or [1.0] * len(ranked)
    items = [
        Shown(item.item_id, item.score, position, propensity)
        for position, (item, propensity) in enumerate(zip(ranked, propensities, strict=True), 1)
    ]
    data = {
        "user_id": answer.user_id,
        "items": items,
        "model": _model.decode(recommended.model or Raw(b"null")),
        "degraded": answer.degraded,
        "request_id": request_id,
    }
    return CloudEvent(
        id=str(uuid.uuid4()),
        source=source,
        type=events.SERVED,
        subject=answer.user_id,
        time=moment,
        data=msgspec.json.encode(data),
        extensions=extensions,
    )
