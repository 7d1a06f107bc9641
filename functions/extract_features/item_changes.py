"""Check events about items and write them into the catalogue of the store. All instances of rank_items read it."""

from collections.abc import Mapping, Sequence
from functools import partial

from chassis.batching.async_batcher import AsyncBatcher
from chassis.batching.queue import BatchLimits
from chassis.call import Call
from chassis.server.events import EventRoute
from chassis.wire.cloudevents import CloudEvent
from chassis.wire.problems import Fault, InvalidRequestError
from functions.extract_features.declared_values import read_values
from functions.extract_features.moments import event_time_us
from functions.extract_features.store_calls import unavailable
from recstore.catalogue.entries import REMOVED, Catalogue, Entry, describe
from recstore.port import StoreError
from recsys.contracts import events
from recsys.declaration.types import Attribute
from recsys.items import Item

# One transaction at a time. Events that arrive during a transaction share the next.
_LIMITS = BatchLimits(max_batch_size=256, max_wait_s=0.0, max_queue_size=2048, slots=1)


class ItemChanges:
    """Writes changes of items, whose *attributes* are declared, into *catalogue*."""

    def __init__(self, catalogue: Catalogue, *, attributes: Mapping[str, Attribute]) -> None:
        self._catalogue, self._attributes = catalogue, attributes
        self._batcher: AsyncBatcher[Entry, bool] = AsyncBatcher(self._put, limits=_LIMITS)

    def routes(self) -> dict[str, EventRoute[Entry]]:
        """Return the routes of the events about items."""
        return {
            events.ITEM_UPSERTED: EventRoute(partial(read_upsert, attributes=self._attributes), self._take),
            events.ITEM_REMOVED: EventRoute(read_removal, self._take),
        }

    async def _take(self, entry: Entry, _event: CloudEvent, call: Call) -> None:
        await self._batcher.ask(entry, within_s=call.deadline.left_s())

    async def _put(self, entries: Sequence[Entry], _within_s: float) -> list[bool]:
        try:
            return await self._catalogue.put(entries)
        except StoreError as error:
            raise unavailable("feature store") from error


def read_upsert(event: CloudEvent, *, attributes: Mapping[str, Attribute]) -> Entry:
    """
    Return the change that *event* reports. Numbers and times among the declared *attributes* get the form of a training.

    Raises:
        NotJsonError, InvalidRequestError: the data do not describe a change.
    """
    return events.item_upserted.read(event.data, lambda data: _entry(data, attributes, at_us=event_time_us(event)))


def _entry(data: events.ItemUpsertedData, attributes: Mapping[str, Attribute], *, at_us: int) -> Entry:
    is_described = data.title is not None or data.attributes is not None
    if not is_described and data.available is None:
        raise InvalidRequestError(faults=[Fault("$", "must have at least one of title, attributes and available")])
    values = read_values(
        data.attributes or (),
        lambda name: attributes[name].kind if name in attributes else "multi-valued",
        declared=attributes,
    )
    described = {name: each for name, each in values.items() if each}
    entry = describe(Item(data.item_id, data.title or "", described), at_us=at_us)
    changed = entry if is_described else Entry(data.item_id)
    if data.available is None:
        return changed
    return changed.merge(Entry(data.item_id, available=data.available, available_us=at_us))


def read_removal(event: CloudEvent) -> Entry:
    """
    Return the removal that *event* reports.

    Raises:
        NotJsonError, InvalidRequestError: the data do not name an item.
    """
    return Entry(events.item_removed.decode(event.data).item_id, REMOVED, event_time_us(event))
