"""Interactions as columns of numbers, a tenth of the memory of a Python object per row."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from offline.reading.lines import DataError, Row
from recsys.declaration.types import Counter
from topk.item_table import F64, I64

# The counters of a user, and none.
COUNTERS: tuple[Counter | None, ...] = ("views", "clicks", "purchases", None)


@dataclass(frozen=True)
class Interactions:
    """
    The rows of a file, in their order.

    Attributes:
        user_ids: Distinct users, in the order of their first rows.
        item_ids: Distinct items, in the order of their first rows.
        users: (N,) int32, place of the user in *user_ids*.
        items: (N,) int32, place of the item in *item_ids*.
        weights: (N,) float64.
        times_us: (N,) int64, microseconds since the epoch; -1 if the row has no time.
        counters: (N,) int8, place in `COUNTERS` of the counter to which the row adds 1.
    """

    user_ids: list[str]
    item_ids: list[str]
    users: NDArray[np.int32]
    items: NDArray[np.int32]
    weights: F64
    times_us: I64
    counters: NDArray[np.int8]

    @classmethod
    def of(cls, rows: Iterable[Row]) -> "Interactions":
        """
        Return *rows* as columns.

        Raises:
            DataError: *rows* is empty or raises this error.
        """
        user_ids: dict[str, int] = {}
        item_ids: dict[str, int] = {}
        users, items, weights, times_us, counters = array("i"), array("i"), array("d"), array("q"), array("b")
        places = {counter: place for place, counter in enumerate(COUNTERS)}
        for row in rows:
            users.append(user_ids.setdefault(row.user_id, len(user_ids)))
            items.append(item_ids.setdefault(row.item_id, len(item_ids)))
            weights.append(row.weight)
            times_us.append(-1 if row.time_us is None else row.time_us)
            counters.append(places[row.counter])
        if not users:
            raise DataError(
                "the data hold no interactions; add lines below the header of the file, or name another file"
            )
        return cls(
            list(user_ids),
            list(item_ids),
            np.frombuffer(users, np.int32),
            np.frombuffer(items, np.int32),
            np.frombuffer(weights, np.float64),
            np.frombuffer(times_us, np.int64),
            np.frombuffer(counters, np.int8),
        )

    @property
    def timed(self) -> bool:
        """Whether every row has a time."""
        return bool((self.times_us >= 0).all())

    def only(self, kept: NDArray[np.bool_]) -> "Interactions":
        """Return the rows where *kept* (N,) is true; the ids stay."""
        return replace(
            self,
            users=self.users[kept],
            items=self.items[kept],
            weights=self.weights[kept],
            times_us=self.times_us[kept],
            counters=self.counters[kept],
        )

    def liked(self) -> "Interactions":
        """Return the rows of the pairs of user and item whose weights add up to more than 0."""
        first, tie = self.ties()
        return self.only((np.bincount(tie, self.weights, first.size) > 0)[tie])

    def ties(self) -> tuple[I64, I64]:
        """Return each distinct pair of user and item as its first row (T,), in file order, and each row's pair (N,)."""
        cells = self.users.astype(np.int64) * len(self.item_ids) + self.items
        _, first, inverse = np.unique(cells, return_index=True, return_inverse=True)
        order = np.argsort(first)
        place = np.empty_like(order)
        place[order] = np.arange(order.size)
        return first[order], place[inverse]
