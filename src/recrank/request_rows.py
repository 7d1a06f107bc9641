"""Requests in the form in which the sources of a model rank them: rows instead of item ids."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recrank.features import Asker
from recrank.filters import Subset
from recsys.contracts.wire import Features
from topk.item_table import F32, I64
from topk.row_lists import RowLists


@dataclass(frozen=True, slots=True)
class Ask:
    """
    One request.

    Attributes:
        features: Features of the user.
        history: Rows of the user's history, distinct, newest first.
        exclude: Further rows that the user may not get.
        limit: Items wanted.
        subset: Rows that the user may get; None for all.
        away: Whether the user was away before this request (`blend.AWAY_US`).
        asker: The user and the time, for features; None without a ranker.
    """

    features: Features
    history: Sequence[int]
    exclude: Sequence[int]
    limit: int
    subset: Subset | None
    away: bool
    asker: Asker | None = None

    def closed(self) -> Sequence[int]:
        """Return the rows of the history and the excluded rows, distinct."""
        return list({*self.history, *self.exclude}) if self.exclude else self.history


@dataclass(frozen=True, slots=True)
class Asked:
    """
    A batch of users to rank for, as all sources get it.

    Attributes:
        vectors: (U, D) float32, user vectors of the factors.
        history: Rows per user, distinct, newest first.
        exclude: Rows that the user may not get.
        subsets: For each user, the rows that the user may get; None for all. Equal subsets are one object.
        depths: (U,) int64, number of items that each source proposes for each user.
        away: (U,) bool, whether the user was away.
    """

    vectors: F32
    history: RowLists
    exclude: RowLists
    subsets: Sequence[Subset | None]
    depths: I64
    away: NDArray[np.bool_]

    def groups(self) -> list[tuple[Subset | None, I64]]:
        """Return each distinct subset and its users."""
        users: dict[int, list[int]] = {}
        for user, subset in enumerate(self.subsets):
            users.setdefault(id(subset), []).append(user)
        return [(self.subsets[each[0]], np.array(each, np.int64)) for each in users.values()]

    def closed(self, items: int) -> I64:
        """Return the cells, user * items + row, that users may not get. Cost: every closed row of every user."""
        parts = [self.exclude.cells(items)]
        parts += [each.closed + user * items for user, each in enumerate(self.subsets) if each is not None]
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def is_open(self, cells: I64, items: int) -> NDArray[np.bool_] | None:
        """
        Tell for each cell whether the user's subset has its row; None if all users may get all.

        Args:
            cells: (N,) (view * users + user) * items + row.
            items: Number of items.
        """
        if not any(self.subsets):
            return None
        lines = cells // items
        owners: I64 = lines % len(self.subsets)
        rows: I64 = cells - lines * items
        groups = self.groups()
        if len(groups) == 1 and groups[0][0] is not None:
            return groups[0][0].mask[rows]
        found = np.ones(rows.size, np.bool_)
        for subset, users in groups:
            if subset is not None:
                mine = np.isin(owners, users)
                found[mine] = subset.mask[rows[mine]]
        return found
