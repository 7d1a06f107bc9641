"""Keep the exposures that recommend reports, and the actions that may be their outcomes, in the exposure log."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any

from chassis.batching.async_batcher import AsyncBatcher
from chassis.batching.queue import BatchLimits
from chassis.call import Call
from chassis.server.events import EventRoute, EventRoutes
from chassis.telemetry.instruments import Counter as LabelledCounter
from chassis.telemetry.instruments import Instrument, Totals
from chassis.wire.cloudevents import CloudEvent
from chassis.wire.problems import Fault, InvalidRequestError
from functions.extract_features.moments import read_time_us
from functions.extract_features.store_calls import unavailable
from recstore.exposures.log import ExposureLog
from recstore.exposures.records import Entry, ExposureGroup, Origin, ShownItem, action_of
from recstore.port import EventOutcome, StoreError
from recsys import metrics
from recsys.contracts import events
from recsys.contracts.events import MAX_GROUP, ServedData, ServedGroupData, ServedItem, ServedPart
from recsys.records import Interaction, digest_event

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
        self._batcher: AsyncBatcher[ExposureGroup, None] = AsyncBatcher(self._note, limits=_LIMITS)
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

    async def _take(self, answers: ExposureGroup, _event: CloudEvent, call: Call) -> None:
        """
        Note the exposures of an event.

        Raises:
            DependencyError, DeadlineExceededError, OverloadedError: they may or may not be noted; send the event again.
        """
        await self._batcher.ask(answers, within_s=call.deadline.left_s())

    async def _note(self, answers: Sequence[ExposureGroup], _within_s: float) -> list[None]:
        self.outcomes.update(await self._keep(answers))
        return [None] * len(answers)

    async def _keep(self, entries: Sequence[Entry]) -> list[EventOutcome]:
        try:
            return await self._log.note(entries)
        except StoreError as error:
            raise unavailable("exposure log") from error


def read_served(event: CloudEvent) -> ExposureGroup:
    """
    Return the exposure that *event* reports.

    Raises:
        NotJsonError, InvalidRequestError: the data do not describe an answer.
    """
    return events.served.read(event.data, partial(_exposure, event=event))


def read_group(event: CloudEvent) -> ExposureGroup:
    """
    Return the exposures that *event* reports.

    Raises:
        NotJsonError, InvalidRequestError: the data do not describe answers.
    """
    return events.served_group.read(event.data, partial(_group, event=event))


def _group(answers: ServedGroupData, *, event: CloudEvent) -> ExposureGroup:
    """Return *answers*; a time in the future counts as the present, as `read_time_us` says."""
    parts = answers.parts
    faults = [fault for place, part in enumerate(parts) for fault in _part_faults(part, f"$.parts[{place}]")]
    if sum(len(part.exposure_id) for part in parts) > MAX_GROUP:
        faults.append(Fault("$.parts", f"must describe at most {MAX_GROUP} answers"))
    if faults:
        raise InvalidRequestError(faults=faults)
    now_us = time.time_ns() // 1000
    times_us = list(chain.from_iterable(part.time_us for part in parts))
    if max(times_us) > now_us:
        times_us = [min(each, now_us) for each in times_us]
    places: dict[Origin, int] = {}
    origin: list[int] = []
    for part in parts:
        own = [places.setdefault(_origin(each), len(places)) for each in part.origins]
        origin += [own[each] for each in part.origin]
    return ExposureGroup(
        digest_event(event.source, event.id).hex(),
        list(chain.from_iterable(part.user_id for part in parts)),
        list(chain.from_iterable(part.exposure_id for part in parts)),
        times_us,
        list(chain.from_iterable(map(_items, parts))),
        list(chain.from_iterable(part.took_us for part in parts)),
        list(places),
        origin,
    )


def _items(part: ServedPart) -> list[tuple[str | ShownItem, ...]]:
    items: list[tuple[str | ShownItem, ...]] = list(map(tuple, part.items))
    for place, drawn in enumerate(part.propensities):
        if drawn:
            pairs = zip(part.items[place], drawn, strict=True)
            items[place] = tuple([ShownItem(item, position, each) for position, (item, each) in enumerate(pairs, 1)])
    return items


def _part_faults(part: ServedPart, path: str) -> Iterator[Fault]:
    count = len(part.exposure_id)
    columns = ("user_id", "items", "time_us", "took_us", "origin")
    optional = ("propensities",) if part.propensities else ()
    for name in (*columns, *optional):
        if len(getattr(part, name)) != count:
            yield Fault(f"{path}.{name}", f"must have {count} members, one for each exposure_id")
    if part.origin and max(part.origin) >= len(part.origins):
        places = (place for place, each in enumerate(part.origin) if each >= len(part.origins))
        yield from (Fault(f"{path}.origin[{place}]", f"must be a place in {path}.origins") for place in places)
    for place, (items, drawn) in enumerate(zip(part.items, part.propensities, strict=False)):
        if drawn and len(drawn) != len(items):
            yield Fault(f"{path}.propensities[{place}]", f"must have {len(items)} members, one for each item")


def _origin(made: events.Origin | ServedData) -> Origin:
    model = made.model
    return Origin(
        model.name if model else None,
        model.version if model else None,
        made.experiment,
        made.arm,
        bool(made.degraded) or made.arm_failed,
    )


def _shown(item: ServedItem, place: int) -> str | ShownItem:
    if item.propensity == 1.0 and item.position in {None, place}:
        return item.item_id
    return ShownItem(item.item_id, item.position or place, item.propensity)


def _exposure(answer: ServedData, *, event: CloudEvent) -> ExposureGroup:
    faults = list[Fault]()
    time_us = read_time_us(answer.time, event, path="$.time", faults=faults)
    if faults:
        raise InvalidRequestError(faults=faults)
    items = tuple(
        [each if isinstance(each, str) else _shown(each, place) for place, each in enumerate(answer.items, 1)]
    )
    return ExposureGroup.alone(
        answer.user_id,
        answer.exposure_id,
        time_us=time_us,
        items=items,
        took_us=answer.took_us,
        origin=_origin(answer),
    )
