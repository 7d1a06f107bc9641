"""Histories as a sparse matrix, for the baselines."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from offline.matrix import Ratings
from recsys.records import UserRecord
from topk.item_table import F64, I64


@dataclass(frozen=True)
class Histories:
    """
    The histories of some users.

    Attributes:
        ends: (U + 1,) int64; user u owns the entries ends[u] to ends[u + 1], exclusive, newest first.
        items: (N,) int32, columns of the items.
        weights: (N,) float64.
        times_us: (N,) int64.
        width: Number of columns.
    """

    ends: I64
    items: NDArray[np.int32]
    weights: F64
    times_us: I64
    width: int

    @classmethod
    def of(cls, records: Sequence[UserRecord], ratings: Ratings) -> "Histories":
        """Return the histories of *records*, without items that *ratings* does not contain."""
        columns = {item_id: column for column, item_id in enumerate(ratings.item_ids)}
        known = [[item for item in record.history if item.item_id in columns] for record in records]
        sizes = [len(history) for history in known]
        size = sum(sizes)
        return cls(
            np.concatenate(([0], np.cumsum(sizes, dtype=np.int64))),
            np.fromiter((columns[item.item_id] for history in known for item in history), np.int32, size),
            np.fromiter((item.weight for history in known for item in history), np.float64, size),
            np.fromiter((item.time_us for history in known for item in history), np.int64, size),
            len(columns),
        )

    @property
    def sizes(self) -> I64:
        """Length of each history, (U,)."""
        return np.diff(self.ends)

    def owners(self) -> I64:
        """Return the user of each entry, (N,)."""
        return np.repeat(np.arange(self.sizes.size), self.sizes)

    def matrix(self, data: F64) -> csr_array:
        """Return *data* (N,) as a matrix (U, I)."""
        return csr_array((data, self.items, self.ends), shape=(self.sizes.size, self.width))

    def fade(self, half_life: float) -> F64:
        """Return 2 ** (-place / half_life) of each entry; the newest has place 0, and without a half-life all get 1."""
        places = np.arange(self.items.size) - self.ends[:-1][self.owners()]
        return np.exp2(places / -half_life) if half_life else np.ones(places.size)

    def blocks(self, users: int) -> Iterator["Histories"]:
        """Yield blocks of at most *users* users."""
        for start in range(0, self.sizes.size, users):
            ends = self.ends[start : start + users + 1]
            yield self._cut(slice(ends[0], ends[-1]), ends - ends[0])

    def sample(self, costs: F64, budget: float) -> "Histories":
        """Return all users, or a random sample whose *costs* (U,) add up to at most *budget*."""
        order = np.random.default_rng(0).permutation(costs.size)
        chosen = np.sort(order[np.cumsum(costs[order]) <= budget])
        if chosen.size == costs.size:
            return self
        kept = np.zeros(costs.size, np.bool_)
        kept[chosen] = True
        return self._cut(np.repeat(kept, self.sizes), np.concatenate(([0], np.cumsum(self.sizes[chosen]))))

    def _cut(self, entries: slice | NDArray[np.bool_], ends: I64) -> "Histories":
        return replace(
            self,
            ends=ends,
            items=self.items[entries],
            weights=self.weights[entries],
            times_us=self.times_us[entries],
        )
