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
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
import msgspec
from msgspec import Raw

from chassis.background import repeating
from chassis.telemetry.instruments import Instrument, Totals
from chassis.wire import cloudevents
from chassis.wire.cloudevents import CloudEvent
from functions.recommend.hops import decode_items
from functions.recommend.recommender import RecommendAnswer, Recommended, draw_exposure_id
from functions.recommend.settings import SinkSettings
from recsys import metrics
from recsys.contracts import events
from recsys.contracts.wire import Model

log = logging.getLogger("recsys.recommend")

QUEUE_SIZE = 1000
SENDERS = 4
FLUSH_S = 1.0
_ATTEMPTS = 5
_BASE_S = 0.2
_TIMEOUT_S = 5.0
# How long a group waits for further answers, and the most bytes of them: extract_features takes bodies of 256 KiB.
_GATHER_S = 0.5
_GROUP_BYTES = 204_800


class _Id(msgspec.Struct, frozen=True, gc=False):
    item_id: str


_ids = msgspec.json.Decoder(list[_Id])
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


class Noted(msgspec.Struct, frozen=True):
    """An answer to report, its id in events, the id of its request, when it was made, and how long it took."""

    recommended: Recommended
    exposure_id: str
    request_id: str
    moment: datetime
    took_s: float = 0.0


class Served(msgspec.Struct, frozen=True):
    """
    The description of an answer in events.

    Attributes:
        exposure_id: Identifies the answer.
        user_id: The user.
        items: The items, best first; their ids alone for a group, if nothing was drawn.
        model: The artefact that ranked; null for the popular list.
        degraded: The hops that failed.
        request_id: The id of the request.
        experiment: The experiment that the answer belongs to.
        arm: The arm of the experiment.
        arm_failed: Whether the arm could not rank, so that the default did; absent if not.
        took_us: The time that the answer took, microseconds.
        time: The time of the answer; absent if the event has it.
    """

    exposure_id: str
    user_id: str
    items: list[Shown] | list[str]
    model: Model | None
    degraded: tuple[str, ...]
    request_id: str
    experiment: str | None = None
    arm: str | None = None
    arm_failed: bool | msgspec.UnsetType = msgspec.UNSET
    took_us: int = 0
    time: datetime | msgspec.UnsetType = msgspec.UNSET


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
        self._waiting: asyncio.Queue[Noted] = asyncio.Queue(QUEUE_SIZE)
        self._gathering, self._is_full = asyncio.Lock(), asyncio.Event()
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
        exposure_id = recommended.exposure_id or draw_exposure_id()
        try:
            self._waiting.put_nowait(Noted(recommended, exposure_id, request_id, datetime.now(UTC), took_s))
        except asyncio.QueueFull:
            self.statistics.dropped += 1
            return ""
        if not self._lacks_answers:
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
                        await self._waiting.join()
        self.statistics.dropped += self._waiting.qsize()

    @property
    def _lacks_answers(self) -> bool:
        """Whether the queue does not complete the group of a sender that has taken one answer."""
        return self._waiting.qsize() < self._group - 1

    async def _send_group(self) -> None:
        group = await self._take()
        try:
            for event, count in self._make_events(group):
                await self._send(event, count)
        finally:
            for _ in group:
                self._waiting.task_done()

    async def _take(self) -> list[Noted]:
        """Wait for an answer; return it together with those that follow soon, if events are about groups."""
        # One sender gathers at a time, so that the groups are large.
        async with self._gathering:
            group = [await self._waiting.get()]
            if self._lacks_answers and not self._is_closing:
                self._is_full.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._is_full.wait(), _GATHER_S)
            while len(group) < self._group and not self._waiting.empty():
                group.append(self._waiting.get_nowait())
            return group

    def _make_events(self, group: Sequence[Noted]) -> Iterator[tuple[CloudEvent, int]]:
        """Yield the events about *group*, each with the number of its answers."""
        answers = []
        for noted in group:
            try:
                answers.append(describe(noted, is_alone=self._group == 1))
            except Exception:
                # An answer that cannot be decoded must not end the sender, which has further events to send.
                self._lose(1)
                log.exception("served_event_crashed", extra={"request_id": noted.request_id})
        if self._group == 1:
            yield from ((make_served(each, source=self._source, extensions=self._extensions), 1) for each in answers)
            return
        for some in _cut([msgspec.json.encode(each) for each in answers], most_bytes=_GROUP_BYTES):
            yield make_group(some, source=self._source, extensions=self._extensions), len(some)

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


def describe(noted: Noted, *, is_alone: bool = True) -> Served:
    """
    Return the description of an answer, which forms an event *alone* or is part of a group.

    In a group, an id alone stands for an item, unless an item of the answer was drawn at random.

    Raises:
        msgspec.DecodeError: the answer of rank_items is malformed.
    """
    answer: RecommendAnswer = noted.recommended.answer
    propensities = _propensities.decode(noted.recommended.propensities)
    items: list[Shown] | list[str]
    if is_alone or propensities:
        items = _show(answer.recommendations, propensities)
    else:
        items = [each.item_id for each in _ids.decode(answer.recommendations)]
    model = _model.decode(noted.recommended.model or Raw(b"null"))
    treatment = noted.recommended.treatment
    return Served(
        noted.exposure_id,
        answer.user_id,
        items,
        model,
        answer.degraded,
        noted.request_id,
        treatment.experiment if treatment else None,
        treatment.arm if treatment else None,
        noted.recommended.arm_failed or msgspec.UNSET,
        round(noted.took_s * 1e6),
        noted.moment,
    )


def _show(recommendations: Raw, propensities: list[float] | None) -> list[Shown]:
    ranked = decode_items(recommendations)
    return [
        Shown(item.item_id, item.score, position, propensity)
        for position, (item, propensity) in enumerate(zip(ranked, propensities or [1.0] * len(ranked), strict=True), 1)
    ]


def make_served(answer: Served, *, source: str, extensions: dict[str, str]) -> CloudEvent:
    """Return the event about *answer*."""
    return CloudEvent(
        id=answer.exposure_id,
        source=source,
        type=events.SERVED,
        subject=answer.user_id,
        time=answer.time or None,
        data=msgspec.json.encode(msgspec.structs.replace(answer, time=msgspec.UNSET)),
        extensions=extensions,
    )


def make_group(answers: Sequence[bytes], *, source: str, extensions: dict[str, str]) -> CloudEvent:
    """Return the event about several encoded *answers*."""
    return CloudEvent(
        id=os.urandom(12).hex(),
        source=source,
        type=events.SERVED_GROUP,
        time=datetime.now(UTC),
        data=b'{"answers":[%b]}' % b",".join(answers),
        extensions=extensions,
    )


def _cut(answers: Sequence[bytes], *, most_bytes: int) -> Iterator[Sequence[bytes]]:
    """Yield *answers* in groups of at most *most_bytes*; a longer answer forms a group alone."""
    start = size = 0
    for place, answer in enumerate(answers):
        if place > start and size + len(answer) > most_bytes:
            yield answers[start:place]
            start, size = place, 0
        size += len(answer)
    if answers:
        yield answers[start:]
