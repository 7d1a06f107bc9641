"""Check events about users, and write them into the store. Events that arrive together share a transaction."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec

from chassis.batching.async_batcher import AsyncBatcher
from chassis.batching.queue import BatchLimits
from chassis.telemetry import definitions
from chassis.telemetry.instruments import Instrument, Totals
from chassis.wire.cloudevents import CloudEvent
from chassis.wire.problems import Fault, InvalidRequestError, Rejected
from functions.extract_features.exposures import Exposures
from functions.extract_features.moments import event_time_us, read_time_us
from functions.extract_features.scrubber import Scrubber
from functions.extract_features.store_calls import StoreCalls
from recstore.erasures import Removed, digest_user
from recstore.port import EventOutcome, FeatureStore
from recsys import metrics
from recsys.contracts import events
from recsys.declaration.types import SESSION_END, EventKind
from recsys.records import Interaction, UserUpdate

# One transaction at a time. Events that arrive during a transaction share the next.
_LIMITS = BatchLimits(max_batch_size=256, max_wait_s=0.0, max_queue_size=2048, slots=1)

log = logging.getLogger("recsys.extract_features")

Data = TypeVar("Data")


class Ingest:
    """
    Counts interactions and takes over updates in *store*, and notes interactions in *exposures*, if exposures are kept.

    Attributes:
        store_calls: The calls of the store.
        scrubber: Scrubs the store after erasures.
        outcomes: Events by outcome since the start.
        rejected: Events that were malformed.
    """

    def __init__(
        self, store: FeatureStore, exposures: Exposures | None = None, *, scrubber: Scrubber | None = None
    ) -> None:
        self._store, self._exposures, self.store_calls = store, exposures, StoreCalls()
        self.scrubber = scrubber or Scrubber(store)
        self._batcher: AsyncBatcher[Interaction, EventOutcome] = AsyncBatcher(self._apply, limits=_LIMITS)
        self._updates: AsyncBatcher[UserUpdate, EventOutcome] = AsyncBatcher(self._update, limits=_LIMITS)
        self.outcomes: Counter[EventOutcome] = Counter()
        self.rejected = 0

    def instruments(self) -> list[Instrument]:
        """Return the metrics of the events and of the store."""
        return [
            *self.store_calls.instruments(),
            Totals(
                metrics.EVENTS,
                lambda: {
                    **{(outcome.value,): self.outcomes[outcome] for outcome in EventOutcome},
                    ("rejected",): self.rejected,
                },
            ),
            Totals(definitions.QUEUE_DEPTH, lambda: {("ingest",): self._batcher.waiting + self._updates.waiting}),
        ]

    def counting(self, read: Callable[[CloudEvent], Data]) -> Callable[[CloudEvent], Data]:
        """Return *read*, which then counts the malformed events that it rejects."""

        def read_and_count(event: CloudEvent) -> Data:
            try:
                return read(event)
            except Rejected:
                self.rejected += 1
                raise

        return read_and_count

    async def count(self, interaction: Interaction, *, within_s: float) -> EventOutcome:
        """
        Count *interaction* unless it is repeated or of an erased user; return the outcome.

        After this returns, the event survives the end of the process.

        Raises:
            DependencyError, DeadlineExceededError, OverloadedError: the event may or may not be counted; send it again.
        """
        outcome = await self._batcher.ask(interaction, within_s=within_s)
        self.outcomes[outcome] += 1
        return outcome

    async def update(self, update: UserUpdate, *, within_s: float) -> None:
        """
        Take over the values of *update* unless they are old or of an erased user.

        After this returns, the values survive the end of the process.

        Raises:
            DependencyError, DeadlineExceededError, OverloadedError: the values may or may not be stored; send the event
                again.
        """
        self.outcomes[await self._updates.ask(update, within_s=within_s)] += 1

    async def erase(self, user_id: str, *, at_us: int) -> Removed:
        """
        Remove a user from the store, and write a receipt without the user's id to the log.

        Raises:
            DependencyError: the user may or may not be removed; send the event again.
        """
        removed = await self.store_calls.measured("erase", self._store.erase(user_id, at_us=at_us))
        if removed != Removed():
            self.scrubber.scrub_soon()
        log.info("user_erased", extra={"user_sha256": digest_user(user_id), **msgspec.structs.asdict(removed)})
        return removed

    async def _apply(self, interactions: Sequence[Interaction], _within_s: float) -> list[EventOutcome]:
        outcomes = await self.store_calls.measured("apply", self._store.apply(interactions))
        # If this fails, the broker sends the events again: the store knows them as repeated, and the log gets them.
        if self._exposures:
            await self._exposures.note_actions(interactions)
        return outcomes

    async def _update(self, updates: Sequence[UserUpdate], _within_s: float) -> list[EventOutcome]:
        return await self.store_calls.measured("update", self._store.update(updates))


def read_erasure(event: CloudEvent) -> tuple[str, int]:
    """
    Return the user that *event* erases, and the time of the erasure (`event_time_us`).

    Raises:
        NotJsonError, InvalidRequestError: the data do not name a user.
    """
    return events.erased.decode(event.data).user_id, event_time_us(event)


def read_interaction(event: CloudEvent, *, kinds: Mapping[str, EventKind]) -> Interaction:
    """
    Return the interaction that *event* reports; *kinds* are the declared kinds of events.

    Raises:
        NotJsonError, InvalidRequestError: the data are not a valid interaction.
    """
    return events.interaction.read(event.data, lambda data: _interaction(data, event, kinds))


def _interaction(data: events.InteractionData, event: CloudEvent, kinds: Mapping[str, EventKind]) -> Interaction:
    ended, kind = data.kind == SESSION_END, kinds.get(data.kind)
    faults = []
    if not ended and kind is None:
        faults.append(Fault("$.kind", f"must be one of {', '.join(map(repr, [*kinds, SESSION_END]))}"))
    elif data.item_id is None and not ended:
        faults.append(Fault("$.item_id", f"is missing: a {data.kind} has an item"))
    time_us = read_time_us(data.time, event, path="$.time", faults=faults)
    if faults:
        raise InvalidRequestError(faults=faults)
    return Interaction(
        source=event.source,
        event_id=event.id,
        user_id=data.user_id,
        kind=data.kind,
        time_us=time_us,
        item_id=None if ended else data.item_id,
        duration_ms=round((data.duration_s or 0.0) * 1000) if ended else 0,
        weight=kind.exact_weight if kind else 0.0,
        counter=kind.counter if kind else "sessions",
        exposure_id=data.exposure_id or "",
    )
