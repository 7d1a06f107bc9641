"""Lists of item rows, one per user and of different lengths, in two flat arrays."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Self

import numpy as np

from topk.item_table import I64, ShapeMismatchError


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
    def of(cls, rows: Sequence[Collection[int]]) -> Self:
        """Join the rows of at least one user, one list or array per user."""
        ends = np.fromiter(accumulate(map(len, rows), initial=0), np.int64, len(rows) + 1)
        return cls(np.fromiter(chain.from_iterable(rows), np.int64, int(ends[-1])), ends)

    def sizes(self) -> I64:
        """Return the number of each user's rows, (U,) int64."""
        return self.ends[1:] - self.ends[:-1]

    def owners(self) -> I64:
        """Return the user of each row, (N,) int64."""
        return np.repeat(np.arange(self.ends.size - 1), self.sizes())

    def cells(self, items: int) -> I64:
        """Return owner * *items* + row of each row, (N,) int64."""
        if self.ends.size == 2:
            return self.rows  # a lone user's cells are the rows
        return self.owners() * items + self.rows

    def part(self, user: int) -> I64:
        """Return the rows of *user*."""
        return self.rows[self.ends[user] : self.ends[user + 1]]

    def of_users(self, users: I64) -> "RowLists":
        """Return the lists of *users*, (N,) int64, in their order; at least one user."""
        return RowLists.of([self.part(user) for user in users.tolist()])

    def positions(self, rows: I64) -> "RowLists":
        """Return the positions of the listed rows in *rows*, which rise, without the rows that are not in it."""
        place = np.minimum(np.searchsorted(rows, self.rows), rows.size - 1)
        kept = rows[place] == self.rows
        return RowLists(place[kept], np.concatenate(([0], np.cumsum(kept)))[self.ends])

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
