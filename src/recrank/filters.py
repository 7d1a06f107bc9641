"""
The rows of the catalogue that a request may get, by the attributes of the items and by availability.

A subset of the catalogue is a bitmap. If it holds a small share of the rows (`picks_pay`), the kernels read only its
rows (`ItemTable.pick`). If it holds more, they score the whole catalogue without the closed rows. The answer is exact
in both cases.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property

import msgspec
import numpy as np
from numpy.typing import NDArray

from chassis.wire.problems import Fault
from recrank.artefact import Item
from recsys.contracts.wire import Condition
from recsys.declaration.faults import condition_faults, find_empty
from recsys.declaration.reader import default_declaration
from recsys.declaration.types import RANGED, Declaration
from topk.item_table import F32, I64

Bools = NDArray[np.bool_]

# Subsets kept for further requests with the same filter, and popular rows kept of each.
_KEPT_SUBSETS = 16
_LEADERS = 4096
# Values that a fault lists, so that a caller sees a misspelling.
_LISTED_VALUES = 10


class ItemAttributes:
    """
    The attributes of a catalogue that a filter may name: the rows of every value, and the numbers of every row.

    Args:
        items: The catalogue.
        declaration: Tells the kinds of the attributes; the demo's by default.
    """

    def __init__(self, items: Sequence[Item], declaration: Declaration | None = None) -> None:
        declared = (declaration or default_declaration()).items.attributes
        kinds = {name: attribute.kind for name, attribute in declared.items()}
        rows: dict[str, dict[str, list[int]]] = {
            name: {} for name, kind in kinds.items() if kind not in (*RANGED, "text")
        }
        self._numbers = {name: np.full(len(items), np.nan) for name, kind in kinds.items() if kind in RANGED}
        for row, item in enumerate(items):
            for name, numbers in self._numbers.items():
                numbers[row] = item.number(name)
            for name, value in item.values():
                if kinds.get(name) not in (*RANGED, "text"):
                    rows.setdefault(name, {}).setdefault(value, []).append(row)
        self._items = len(items)
        self._rows = {
            name: {value: np.array(each, np.int64) for value, each in values.items()} for name, values in rows.items()
        }

    def has(self, name: str) -> bool:
        """Tell whether items may have the attribute *name*."""
        return name in self._rows or name in self._numbers

    def values(self, name: str) -> Mapping[str, I64]:
        """Return the rows, in rising order, of each value of the attribute *name*; empty for an unknown attribute."""
        return self._rows.get(name, {})

    def faults(
        self, conditions: Sequence[Condition], path: str, *, allowed: Sequence[str] | None = None
    ) -> Iterator[Fault]:
        """
        Yield a fault for each attribute and each value in *conditions* that no item has; *path* is their place.

        If *allowed* is not None, other attributes are faults too.
        """
        names = [name for name in (*self._rows, *self._numbers) if allowed is None or name in allowed]
        for place, condition in enumerate(conditions):
            here = f"{path}[{place}]"
            if condition.attribute not in names:
                yield Fault(f"{here}.attribute", f"must be one of: {', '.join(names) or 'none'}")
                continue
            yield from find_empty(condition, here)
            yield from condition_faults(condition, is_ranged=condition.attribute in self._numbers, path=here)
            known = self._rows.get(condition.attribute)
            if known is None:
                continue
            examples = ", ".join(sorted(known)[:_LISTED_VALUES]) or "none"
            for number, value in enumerate(condition.any_of):
                if value not in known:
                    yield Fault(
                        f"{here}.any_of[{number}]", f"no item has this {condition.attribute}; some are: {examples}"
                    )

    def mask(self, condition: Condition) -> Bools:
        """Return the bitmap of the items that *condition* accepts, (I,). Items without a number are outside every range."""
        if (numbers := self._numbers.get(condition.attribute)) is not None:
            least, most = condition.at_least, condition.at_most
            return (numbers >= (-np.inf if least is None else least)) & (numbers <= (np.inf if most is None else most))
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
        self._leaders: dict[int, I64] = {}

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

    @cached_property
    def penalty(self) -> F32:
        """The other rows as a sum to add to scores, (I,): -inf for a row outside the subset, else 0."""
        return np.where(self.mask, np.float32(0), np.float32(-np.inf))

    def popular(self, order: I64, count: int) -> I64:
        """Return the first *count* rows of the subset in *order*, which lists all rows and lives as long as the subset."""
        if count > _LEADERS:
            return order[self.mask[order]][:count]
        if id(order) not in self._leaders:
            self._leaders[id(order)] = order[self.mask[order]][:_LEADERS].copy()
        return self._leaders[id(order)][:count]


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
        self._kept: OrderedDict[bytes, Subset] = OrderedDict()

    def subset(self, conditions: Sequence[Condition]) -> Subset | None:
        """Return the rows on offer that meet all *conditions*; None for the whole catalogue."""
        if not conditions:
            return self._whole
        key = msgspec.json.encode(conditions)
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
