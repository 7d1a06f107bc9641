"""
The rows of the catalogue that a request may get, by the attributes of the items and by availability.

A subset of the catalogue is a bitmap. If it holds a small share of the rows (`picks_pay`), the kernels read only its
rows (`ItemTable.pick`). If it holds more, they score the whole catalogue without the closed rows. The answer is exact
in both cases.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from chassis.wire.problems import Fault
from recsys.contracts.wire import Condition
from recsys.ranking.artefact import Item
from topk.item_table import I64

Bools = NDArray[np.bool_]

# Subsets kept for further requests with the same filter, and popular rows kept of each.
_KEPT_SUBSETS = 16
_LEADERS = 4096
# Values that a fault lists, so that a caller sees a misspelling.
_LISTED_VALUES = 10


class ItemAttributes:
    """The rows of every value of every attribute of a catalogue."""

    def __init__(self, items: Sequence[Item]) -> None:
        rows: dict[str, dict[str, list[int]]] = {"category": {}}
        for row, item in enumerate(items):
            for name, value in item.values():
                rows.setdefault(name, {}).setdefault(value, []).append(row)
        self._items = len(items)
        self._rows = {
            name: {value: np.array(each, np.int64) for value, each in values.items()} for name, values in rows.items()
        }

    def has(self, name: str) -> bool:
        """Tell whether items may have the attribute *name*."""
        return name in self._rows

    def values(self, name: str) -> Mapping[str, I64]:
        """Return the rows, in rising order, of each value of the attribute *name*; empty for an unknown attribute."""
        return self._rows.get(name, {})

    def faults(self, conditions: Sequence[Condition], path: str) -> Iterator[Fault]:
        """Yield a fault for each attribute and each value in *conditions* that no item has; *path* is their place."""
        for place, condition in enumerate(conditions):
            here = f"{path}[{place}]"
            if condition.attribute not in self._rows:
                yield Fault(f"{here}.attribute", f"must be one of: {', '.join(self._rows)}")
                continue
            known = self._rows[condition.attribute]
            examples = ", ".join(sorted(known)[:_LISTED_VALUES]) or "none"
            for number, value in enumerate(condition.any_of):
                if value not in known:
                    yield Fault(
                        f"{here}.any_of[{number}]", f"no item has this {condition.attribute}; some are: {examples}"
                    )

    def mask(self, condition: Condition) -> Bools:
        """Return the bitmap of the items that *condition* accepts, (I,)."""
        known = self.values(condition.attribute)
        mask = np.zeros(self._items, np.bool_)
        for value in condition.any_of:
            if value in known:
                mask[known[value]] = True
        return mask


class Subset:
    """
    Rows of the catalogue that a request may get.

    Attributes:
        mask: (I,) bool.
    """

    def __init__(self, mask: Bools) -> None:
        self.mask = mask
        self._leaders: I64 | None = None

    @cached_property
    def size(self) -> int:
        """The number of rows."""
        return int(np.count_nonzero(self.mask))

    @cached_property
    def rows(self) -> I64:
        """The rows, in rising order."""
        return np.flatnonzero(self.mask)

    @cached_property
    def closed(self) -> I64:
        """The other rows, in rising order."""
        return np.flatnonzero(~self.mask)

    def popular(self, order: I64, count: int) -> I64:
        """Return the first *count* rows of the subset in *order*, which lists all rows and is the same in every call."""
        if count > _LEADERS:
            return order[self.mask[order]][:count]
        if self._leaders is None:
            self._leaders = order[self.mask[order]][:_LEADERS].copy()
        return self._leaders[:count]


class Shelf:
    """
    The part of the catalogue that is on offer, and its subsets by filter.

    Args:
        attributes: The attributes of the catalogue.
        mask: (I,) bool, the rows on offer; None for all.
    """

    def __init__(self, attributes: ItemAttributes, mask: Bools | None = None) -> None:
        self._attributes = attributes
        self._whole = None if mask is None or mask.all() else Subset(mask)
        self._kept: OrderedDict[tuple[tuple[str, tuple[str, ...]], ...], Subset] = OrderedDict()

    def subset(self, conditions: Sequence[Condition]) -> Subset | None:
        """Return the rows on offer that meet all *conditions*; None for the whole catalogue."""
        if not conditions:
            return self._whole
        key = tuple((each.attribute, tuple(each.any_of)) for each in conditions)
        found = self._kept.get(key)
        if found is None:
            masks = [self._attributes.mask(each) for each in conditions]
            found = Subset(join_masks([*masks, *([self._whole.mask] if self._whole else [])]))
            self._kept[key] = found
            if len(self._kept) > _KEPT_SUBSETS:
                self._kept.popitem(last=False)
        return found


def join_masks(masks: Iterable[Bools]) -> Bools:
    """Return the bitmap of the rows that are in all of *masks*, of which there is at least one."""
    joined: Bools = np.logical_and.reduce(list(masks))
    return joined
