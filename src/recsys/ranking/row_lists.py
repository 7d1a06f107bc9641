"""Lists of item rows, one per user and of different lengths, in two flat arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from recsys.ranking.item_table import I64, ShapeMismatchError


@dataclass(frozen=True, slots=True)
class RowLists:
    """
    A list of item rows per user, stored one after another.

    Attributes:
        rows: (N,) int64.
        ends: (U + 1,) int64, from 0 to N; user u owns rows[ends[u]:ends[u + 1]].
    """

    rows: I64
    ends: I64

    @classmethod
    def of(cls, rows: Sequence[I64]) -> Self:
        """Join the arrays of at least one user, one array per user."""
        ends = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(part) for part in rows], out=ends[1:])
        return cls(np.concatenate(rows, dtype=np.int64), ends)

    def owners(self) -> I64:
        """Return the user of each row, (N,) int64."""
        return np.repeat(np.arange(self.ends.size - 1), np.diff(self.ends))

    def part(self, user: int) -> I64:
        """Return the rows of *user*."""
        return self.rows[self.ends[user] : self.ends[user + 1]]

    def newest(self, most: int) -> "RowLists":
        """Return the first *most* rows of every user."""
        sizes = np.diff(self.ends)
        if not sizes.size or sizes.max() <= most:
            return self
        place = np.arange(self.rows.size) - np.repeat(self.ends[:-1], sizes)
        return RowLists(self.rows[place < most], np.concatenate(([0], np.cumsum(np.minimum(sizes, most)))))

    def check(self, *, users: int, items: int) -> None:
        """
        Refuse lists that do not fit a batch of *users* and a catalogue of *items*.

        Raises:
            ShapeMismatchError: the number of users differs, or a row lies outside the catalogue.

        Cost: O(N).
        """
        size = self.rows.size
        if self.ends.size != users + 1 or self.ends[-1] != size:
            raise ShapeMismatchError(f"lists for {self.ends.size - 1} users with {size} rows, for a batch of {users}")
        if size and not (self.rows.min() >= 0 and self.rows.max() < items):
            raise ShapeMismatchError(f"rows must lie in 0..{items - 1}")
