"""Keep the exposures that recommend reports, and the actions that may be their outcomes, in the exposure log."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from chassis.batching.async_batcher import AsyncBatcher
from chassis.batching.queue import BatchLimits
from chassis.call import Call
from chassis.server.events import EventRoute, EventRoutes
from chassis.telemetry.instruments import Counter as LabelledCounter
from chassis.telemetry.instruments import Instrument, Totals
from chassis.wire.cloudevents import CloudEvent
from chassis.wire.decoder import split_members
from chassis.wire.problems import Fault, InvalidRequestError, ServingError
from functions.extract_features.moments import read_time_us
from functions.extract_features.store_calls import unavailable
from recstore.exposures.log import ExposureLog
from recstore.exposures.records import Entry, Exposure, ShownItem, action_of
from recstore.port import EventOutcome, StoreError
from recsys import metrics
from recsys.contracts import events
from recsys.contracts.events import MAX_GROUP, ServedData, ServedItem
from recsys.records import Interaction

# One transaction at a time. Events that arrive during a transaction share the next.
_LIMITS = BatchLimits(max_batch_size=64, max_wait_s=0.0, max_queue_size=2048, slots=1)


class Exposures:
    """
    Notes exposures and actions in *log*.

    Attributes:
        outcomes: Exposures by outcome since the start.
        actions: Counts actions that name an exposure, by kind.
    """

    def __init__(self, log: ExposureLog) -> None:
        self._log = log
        self._batcher: AsyncBatcher[Sequence[Exposure], Sequence[EventOutcome]] = AsyncBatcher(
            self._note, limits=_LIMITS
        )
        self.outcomes: Counter[EventOutcome] = Counter()
        self.actions = LabelledCounter(metrics.EXPOSURE_ACTIONS)

    def instruments(self) -> list[Instrument]:
        """Return the metrics of exposures."""
        return [
            Totals(metrics.EXPOSURES, lambda: {(outcome.value,): self.outcomes[outcome] for outcome in EventOutcome}),
            self.actions,
        ]

    def routes(self, counting: Callable[[Callable[[CloudEvent], Any]], Callable[[CloudEvent], Any]]) -> EventRoutes:
        """Return the routes of the events about answers; *counting* wraps their readers."""
        return {
            events.SERVED: EventRoute(counting(read_served), self._take),
            events.SERVED_GROUP: EventRoute(counting(read_group), self._take),
        }

    async def note_actions(self, interactions: Sequence[Interaction]) -> None:
        """
        Note the *interactions* that concern an item.

        Raises:
            DependencyError: they may or may not be noted; note them again.
        """
        actions = [action for each in interactions if (action := action_of(each))]
        if not actions:
            return
        noted = await self._keep(actions)
        for action, outcome in zip(actions, noted, strict=True):
            if action.exposure_id and outcome is EventOutcome.ACCEPTED:
                self.actions.add(action.kind)

    async def _take(self, exposures: Sequence[Exposure], _event: CloudEvent, call: Call) -> None:
        """
        Note the exposures of an event.

        Raises:
            DependencyError, DeadlineExceededError, OverloadedError: they may or may not be noted; send the event again.
        """
        self.outcomes.update(await self._batcher.ask(exposures, within_s=call.deadline.left_s()))

    async def _note(self, groups: Sequence[Sequence[Exposure]], _within_s: float) -> list[Sequence[EventOutcome]]:
        noted = iter(await self._keep([exposure for group in groups for exposure in group]))
        return [[next(noted) for _ in group] for group in groups]

    async def _keep(self, entries: Sequence[Entry]) -> list[EventOutcome]:
        try:
            return await self._log.note(entries)
        except StoreError as error:
            raise unavailable("exposure log") from error


def read_served(event: CloudEvent) -> list[Exposure]:
    """
    Return the exposure that *event* reports.

    Raises:
        NotJsonError, InvalidRequestError: the data do not describe an answer.
    """
    return [events.served.read(event.data, partial(_exposure, event=event))]


def read_group(event: CloudEvent) -> list[Exposure]:
    """
    Return the exposures that *event* reports.

    Raises:
        NotJsonError, InvalidRequestError: the data do not describe answers; lists the faults of all.
    """
    members = split_members(event.data, "answers", most=MAX_GROUP) or events.served_group.decode(event.data).answers
    # Decoding the answers one by one takes a tenth of the time that a long body takes.
    results = events.served.read_each(members, partial(_exposure, event=event))
    refusals = [(place, each) for place, each in enumerate(results) if isinstance(each, ServingError)]
    if refusals:
        faults = [fault for place, each in refusals for fault in _placed(each, f"$.answers[{place}]")]
        raise InvalidRequestError(faults=faults)
    return [each for each in results if isinstance(each, Exposure)]


def _placed(refusal: ServingError, path: str) -> list[Fault]:
    """Return the faults of one answer of a group, each with its place in the group."""
    if isinstance(refusal, InvalidRequestError) and refusal.faults:
        return [Fault(path + each.path.removeprefix("$"), each.detail) for each in refusal.faults]
    return [Fault(path, str(refusal))]


def _shown(item: ServedItem, place: int) -> str | ShownItem:
    if item.propensity == 1.0 and item.position in {None, place}:
        return item.item_id
    return ShownItem(item.item_id, item.position or place, item.propensity)


def _exposure(answer: ServedData, *, event: CloudEvent) -> Exposure:
    model, faults = answer.model, list[Fault]()
    time_us = read_time_us(answer.time, event, path="$.time", faults=faults)
    if faults:
        raise InvalidRequestError(faults=faults)
    return Exposure(
        answer.exposure_id,
        answer.user_id,
        time_us,
        tuple([each if isinstance(each, str) else _shown(each, place) for place, each in enumerate(answer.items, 1)]),
        model.name if model else None,
        model.version if model else None,
        answer.experiment,
        answer.arm,
        answer.took_us,
        bool(answer.degraded) or answer.arm_failed,
    )
