"""
Compute the declared features of candidates. Training and serving use this code, so their features cannot differ.

A feature is an object with one method, `compute`, which returns a number for each candidate of a batch. The kinds are
those of `recsys.declaration.features`. A class of the team's own has the same method, and its constructor takes the items
of the catalogue in the order of their rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from recsys.contracts.wire import Features
from recsys.declaration.classes import import_class
from recsys.declaration.features import Feature
from recsys.items import Item
from topk.item_table import F32, F64, I64
from topk.row_lists import RowLists

POPULARITY = "popularity_"
"""The beginning of the names of the arrays of windowed popularity."""

_DAY_US = 86_400_000_000
_SECOND_US = 1_000_000
_HOUR_US = 3_600_000_000
_FIRST_WEEKDAY = 3  # 1970-01-01 was a Thursday
# Values of an item that a table with a place for each can hold: a wider table would waste memory.
_MOST_SLOTS = 8


@dataclass(frozen=True, slots=True)
class Asker:
    """
    The user and the time of a request.

    Attributes:
        features: The four features of the user.
        at_us: Time of the request, microseconds since the epoch.
        as_of_us: Time of the user's newest interaction; None if it is unknown.
        attributes: Values of the user's attributes, by name.
        context: The situation of the user, by name.
    """

    features: Features
    at_us: int
    as_of_us: int | None
    attributes: Mapping[str, Sequence[str]]
    context: Mapping[str, str | float]


@dataclass(frozen=True, slots=True)
class Batch:
    """
    The candidates of a batch of requests.

    Attributes:
        rows: (N,) the row of each candidate in the catalogue, grouped by request.
        owners: (N,) the place of its request in *askers*.
        askers: The requests.
        history: Rows of each request's history, newest first.
    """

    rows: I64
    owners: I64
    askers: Sequence[Asker]
    history: RowLists


class Computed(Protocol):
    """A feature that can be computed for candidates. A value may depend only on its candidate and its request."""

    def compute(self, batch: Batch) -> F32 | F64:
        """Return the feature of each candidate, (N,). A number that is not finite counts as missing."""


class DeclaredFeatures:
    """
    The declared features of a catalogue.

    Args:
        features: The features by name.
        items: The catalogue.
        popularity: The artefact's arrays, with (I,) numbers for each feature of the kind `popularity`.

    Raises:
        KeyError, TypeError, ValueError: a class cannot be imported or made, or a popularity is missing.
    """

    def __init__(
        self, features: Mapping[str, Feature], items: Sequence[Item], popularity: Mapping[str, F32] | None = None
    ) -> None:
        self._features = {
            name: (_make(name, feature, items, popularity or {}), np.float32(feature.missing))
            for name, feature in features.items()
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the features, in the order of the declaration."""
        return tuple(self._features)

    def compute(self, names: Sequence[str], batch: Batch) -> dict[str, F32]:
        """
        Return the features *names* of the candidates of *batch*, by name.

        Raises:
            ValueError: a class returns an array of another shape.
        """
        found: dict[str, F32] = {}
        with np.errstate(over="ignore"):
            for name in names:
                feature, missing = self._features[name]
                computed = np.asarray(feature.compute(batch))
                if computed.shape != batch.rows.shape:
                    raise ValueError(f"feature {name} returns {computed.shape} for {batch.rows.size} candidates")
                # The cast makes numbers beyond float32 infinite.
                values = computed.astype(np.float32, copy=False)
                if not isinstance(feature, _OfItem | _Match):  # these are always finite
                    values = np.where(np.isfinite(values), values, missing)
                found[name] = values
        return found


def popularity_array(name: str) -> str:
    """Return the name of the artefact's array for the feature *name* of the kind `popularity`."""
    return f"{POPULARITY}{name}"


def _make(name: str, feature: Feature, items: Sequence[Item], popularity: Mapping[str, F32]) -> Computed:
    match feature.kind:
        case "attribute" if feature.of == "item":
            return _OfItem.of(np.array([_item_value(item, feature) for item in items], np.float32), feature)
        case "popularity":
            return _OfItem.of(popularity[popularity_array(name)], feature)
        case "time_since":
            return _TimeSince(np.array([item.number(feature.attribute or "") for item in items]) * _SECOND_US)
        case "match":
            return _Match.of(items, feature.attribute or "", feature.user_attribute)
        case "python":
            made: Computed = import_class(feature.class_ or "", method="compute")(items)
            return made
        case _:
            return _OfAsker(_READERS[feature.kind](feature))


@dataclass(frozen=True)
class _OfItem:
    """A value of the item alone; absent values are replaced once."""

    values: F32

    @classmethod
    def of(cls, values: F32, feature: Feature) -> Self:
        return cls(np.where(np.isfinite(values), values, np.float32(feature.missing)))

    def compute(self, batch: Batch) -> F32:
        return self.values[batch.rows]


@dataclass(frozen=True)
class _OfAsker:
    """A value of the request alone."""

    read: Callable[[Asker], float]

    def compute(self, batch: Batch) -> F64:
        return np.array([self.read(asker) for asker in batch.askers], np.float64)[batch.owners]


@dataclass(frozen=True)
class _TimeSince:
    """Days from a time of the item to the request. An item whose time is still to come has 0, as if it were new."""

    times_us: F64

    def compute(self, batch: Batch) -> F64:
        at_us = np.array([asker.at_us for asker in batch.askers], np.float64)
        return np.maximum((at_us[batch.owners] - self.times_us[batch.rows]) / _DAY_US, 0.0)


@dataclass(frozen=True)
class _Match:
    """
    How an item fits a user by an attribute of the item.

    Compared with the history, the feature is the share of the history's items that have the value of the item. If the
    item has several values, the largest share counts. Compared with an attribute of the user, it is 1 if the two have a
    value in common, and 0 otherwise.

    Attributes:
        places: Place of each value; the last place, V, stands for no value.
        codes: Places of each item's distinct values, at least one.
        slots: (S, I) int32, the same places, padded with V; None if an item has more than `_MOST_SLOTS` values.
        user_attribute: The attribute of the user; None for the history.
    """

    places: Mapping[str, int]
    codes: RowLists
    slots: NDArray[np.int32] | None
    user_attribute: str | None

    @classmethod
    def of(cls, items: Sequence[Item], attribute: str, user_attribute: str | None) -> Self:
        values = [tuple(dict.fromkeys(item.attributes.get(attribute, ()))) for item in items]
        places = {value: place for place, value in enumerate(dict.fromkeys(one for each in values for one in each))}
        codes = RowLists.of([[places[one] for one in each] or [len(places)] for each in values])
        return cls(places, codes, _slots(codes, len(places)), user_attribute)

    def compute(self, batch: Batch) -> F64:
        width = len(self.places) + 1
        table = self._of_history(batch, width) if self.user_attribute is None else self._of_user(batch, width)
        table[:, -1] = 0
        shares = table.take(self._cells(batch.rows, batch.owners, width))
        if self.slots is not None:
            return np.asarray(shares.max(axis=0), np.float64)
        sizes = self._sizes(batch.rows)
        return np.asarray(np.maximum.reduceat(shares, sizes.cumsum() - sizes), np.float64)

    def _of_history(self, batch: Batch, width: int) -> F64:
        """Return the share of each request's history that has each value, (U, V + 1)."""
        users, history = len(batch.askers), batch.history
        cells = self._cells(history.rows, history.owners(), width).reshape(-1)
        counts = np.bincount(cells, minlength=users * width).reshape(users, width)
        return np.asarray(counts / np.maximum(history.sizes(), 1)[:, None], np.float64)

    def _of_user(self, batch: Batch, width: int) -> F64:
        """Return 1 for each value that the user has, (U, V + 1)."""
        table = np.zeros((len(batch.askers), width))
        for place, asker in enumerate(batch.askers):
            values = asker.attributes.get(self.user_attribute or "", ())
            table[place, [self.places[value] for value in values if value in self.places]] = 1
        return table

    def _cells(self, rows: I64, owners: I64, width: int) -> I64:
        """Return owner * *width* + place for the values of *rows*: (S, N) with slots, else one row after another."""
        if self.slots is not None:
            return np.asarray(self.slots.take(rows, axis=1) + owners * width, np.int64)
        sizes = self._sizes(rows)
        ends = sizes.cumsum()
        entries = np.arange(sizes.sum()) + (self.codes.ends.take(rows) - ends + sizes).repeat(sizes)
        return np.asarray(self.codes.rows.take(entries) + (owners * width).repeat(sizes), np.int64)

    def _sizes(self, rows: I64) -> I64:
        """Return the number of values of each of *rows*."""
        return self.codes.ends.take(rows + 1) - self.codes.ends.take(rows)


def _slots(codes: RowLists, vacant: int) -> NDArray[np.int32] | None:
    """Return the places of each item's values, padded with *vacant*; None if an item has too many values."""
    sizes = codes.sizes()
    widest = int(sizes.max(initial=1))
    if widest > _MOST_SLOTS:
        return None
    table = np.full((sizes.size, widest), vacant, np.int32)
    table[np.arange(widest) < sizes[:, None]] = codes.rows
    return np.ascontiguousarray(table.T)


def _item_value(item: Item, feature: Feature) -> float:
    """Return the number of an item's attribute, or the place of its first word in the declared values."""
    name = feature.attribute or ""
    return _place(item.attributes.get(name, ()), feature.values) if feature.values else item.number(name)


def _place(words: Sequence[str], values: Sequence[str]) -> float:
    """Return the place of the first of *words* in *values*, from 1 on; 0 for another word, NaN without a word."""
    if not words:
        return np.nan
    return float(values.index(words[0]) + 1) if words[0] in values else 0.0


def _read_attribute(feature: Feature) -> Callable[[Asker], float]:
    name = feature.attribute or ""

    def read(asker: Asker) -> float:
        if feature.of == "user":
            found: Sequence[str | float] = asker.attributes.get(name, ())
        else:
            found = (asker.context[name],) if name in asker.context else ()
        if feature.values:
            return _place([str(each) for each in found], feature.values)
        try:
            return float(found[0])
        except (IndexError, ValueError):
            return np.nan

    return read


def _recency(asker: Asker) -> float:
    return np.nan if asker.as_of_us is None else max(asker.at_us - asker.as_of_us, 0) / _DAY_US


_READERS: Mapping[str, Callable[[Feature], Callable[[Asker], float]]] = {
    "attribute": _read_attribute,
    "counter": lambda _: lambda asker: asker.features.total_purchases,
    "rate": lambda feature: (
        (lambda asker: asker.features.engagement_score)
        if feature.name == "engagement"
        else (lambda asker: asker.features.avg_session_duration)
    ),
    "recency": lambda _: _recency,
    # A time at the edge of the calendar is in no year of `datetime` once it is in UTC.
    "hour": lambda _: lambda asker: asker.at_us // _HOUR_US % 24,
    "weekday": lambda _: lambda asker: (asker.at_us // _DAY_US + _FIRST_WEEKDAY) % 7,
}
