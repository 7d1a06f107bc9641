"""
Item-to-item scores: each item of the history votes for its neighbours.

    score[u, j] = sum over places p of the history  2**(-p / half_life) * weight[history_p, j]

Place 0 is the newest item. The neighbours and their weights were counted in training (offline/pairs.py). A model may
have several views of the neighbours, with different weights and half-lives. The votes of all views are collected in one
pass. A user's votes are added in the order of the history, so a score has the same bits in every batch.

The votes for items without interactions (new items) were predicted from attributes. They tell what the user
likes, not what follows the newest item, and the whole history shows what the user likes. So half of their strength
follows the half-life, and the other half is the same for all items of the history (docs/adr/0038-new-items.md).

Sources: Sarwar et al. 2001, "Item-based collaborative filtering"; Ludewig & Jannach 2018, "Evaluation of session-based
recommendation algorithms" (sequential rules).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from topk.candidates import RankedBatch, rank_candidates
from topk.item_table import F32, F64, I64, ShapeMismatchError
from topk.row_lists import RowLists

# Items more than this number of half-lives back in the history do not vote.
_FAINTEST = 5
# Items of a history that vote, at most.
_MOST_VOTERS = 100
# The share of the strength of votes for new items that is the same for the whole history.
_EVEN_SHARE = 0.5

KNOWN: Final = "neighbours_known"
"""The array with the number of known items, whose rows come first; absent if all are known."""

_T = TypeVar("_T", np.int64, np.int32, np.float32)


@dataclass(frozen=True, slots=True)
class Scored:
    """
    The items with scores above 0, for every line; a line is a pair of a view and a user.

    Attributes:
        cells: (N,) int64, line * items + row, in rising order.
        scores: (N,) float32, above 0.
    """

    cells: I64
    scores: F32

    def without(self, cells: I64) -> "Scored":
        """Return the scores of the other cells; *cells* rise."""
        if not self.cells.size:
            return self
        place = self.cells.searchsorted(cells)
        kept = np.ones(self.cells.size, np.bool_)
        kept[place[self.cells.take(place, mode="clip") == cells]] = False
        return Scored(self.cells[kept], self.scores[kept])

    def at(self, cells: I64) -> F32:
        """Return the scores of *cells*; a cell without a score has 0."""
        if not self.cells.size:
            return np.zeros(cells.size, np.float32)
        place = self.cells.searchsorted(cells)
        scores = self.scores.take(place, mode="clip")
        scores[self.cells.take(place, mode="clip") != cells] = 0
        return scores

    def best(self, *, lines: int, items: int, limit: int) -> RankedBatch:
        """Return each line's *limit* best items."""
        if not lines:
            return RankedBatch(np.empty((0, limit), np.int64), np.empty((0, limit), np.float32), np.empty(0, np.int64))
        owners = self.cells // items
        counts = np.bincount(owners, minlength=lines)
        return rank_candidates(self.cells - owners * items, self.scores, counts=counts, limit=limit)


@dataclass(frozen=True, slots=True)
class Neighbours:
    """
    One view: the neighbours of every item, and the half-life of their votes.

    Attributes:
        ends: (I + 1,) int64; item i owns entries ends[i] to ends[i + 1], exclusive.
        items: (N,) int32, the neighbours.
        weights: (N,) float32, their weights, above 0.
        half_life: Places back in the history at which a vote counts half; with 0, all votes count the same.
    """

    ends: I64
    items: NDArray[np.int32]
    weights: F32
    half_life: float

    def check(self, *, items: int) -> None:
        """
        Refuse arrays that do not fit each other or a catalogue of *items*.

        Raises:
            ShapeMismatchError: shapes, rows, weights or the half-life do not fit.
        """
        size = self.items.size
        fits = self.ends.shape == (items + 1,) and self.weights.shape == self.items.shape == (size,)
        if not fits or self.ends[0] != 0 or self.ends[-1] != size or (np.diff(self.ends) < 0).any():
            raise ShapeMismatchError(f"neighbours {self.ends.shape}, {self.items.shape}, {self.weights.shape}")
        if size and not 0 <= self.items.min() <= self.items.max() < items:
            raise ShapeMismatchError(f"neighbours must lie in 0..{items - 1}")
        if not (self.half_life >= 0 and (self.weights > 0).all()):
            raise ShapeMismatchError("weights of neighbours must be above 0 and the half-life at least 0")

    def voters(self) -> int:
        """Return the number of items of a history that vote, at most."""
        return min(_MOST_VOTERS, int(np.ceil(_FAINTEST * self.half_life))) if self.half_life else _MOST_VOTERS


@dataclass(frozen=True, slots=True)
class Views:
    """
    All views of a model, stored one after another, so that one pass counts the votes of all.

    Each view is one part, or two: the votes for known items, then those for new items.

    Attributes:
        number: Number of views, V.
        catalogue: Number of items, I.
        parts: (P,) int64, the view of each part.
        starts, sizes: (P * I,) int64; row i of part p owns *sizes* entries from *starts* on, both at p * I + i.
        items: (N,) int32, the neighbours.
        weights: (N,) float32, their weights.
        voters: (P, 1) int64, items of a history that vote.
        fade: (P, H) float64, strength of the vote at each place.
        even: (P, H + 1) float64, strength that each vote gets in addition, by the number of items that vote.
    """

    number: int
    catalogue: int
    parts: I64
    starts: I64
    sizes: I64
    items: NDArray[np.int32]
    weights: F32
    voters: I64
    fade: F64
    even: F64

    @classmethod
    def of(cls, views: Sequence[Neighbours], *, items: int, known: int | None = None) -> Self:
        """
        Check and join *views* of a catalogue of *items*.

        Args:
            views: The views.
            items: I.
            known: Number of known items, whose rows come first; the neighbours of each row are sorted so, too. None
                for all.

        Raises:
            ShapeMismatchError: a view or the number of known items does not fit.
        """
        known = items if known is None else known
        if not 0 <= known <= items:
            raise ShapeMismatchError(f"{known} known items in a catalogue of {items}")
        for view in views:
            view.check(items=items)
        offsets = np.cumsum([0, *(view.items.size for view in views)])
        parts: list[_Part] = []
        for number, (view, offset) in enumerate(zip(views, offsets.tolist(), strict=False)):
            parts += _split(view, number, offset, known=known)
        most = int(max((part.voters for part in parts), default=1))
        return cls(
            number=len(views),
            catalogue=items,
            parts=np.array([part.view for part in parts], np.int64),
            starts=_joined([part.starts for part in parts], np.int64),
            sizes=_joined([part.sizes for part in parts], np.int64),
            items=_joined([view.items for view in views], np.int32),
            weights=_joined([view.weights for view in views], np.float32),
            voters=np.array([part.voters for part in parts], np.int64).reshape(-1, 1),
            fade=np.array([part.fade[:most] for part in parts]).reshape(len(parts), most),
            even=np.array([part.even[: most + 1] for part in parts]).reshape(len(parts), most + 1),
        )

    def score_all(self, history: RowLists, *, wanted: NDArray[np.bool_]) -> F64:
        """
        Return the scores of the whole catalogue, (V, U, I) float64.

        Args:
            history: Distinct rows of the catalogue per user, newest first; may be empty.
            wanted: (V, U) bool; without it, all scores of a line are 0.

        Cost: one addition per neighbour of the items that vote, and V * U * I sums.
        """
        cells, votes = self._vote(history, wanted)
        sums: F64 = np.bincount(cells, votes, wanted.size * self.catalogue).astype(np.float64, copy=False)
        return sums.reshape(self.number, history.ends.size - 1, self.catalogue)

    def score(self, history: RowLists, *, wanted: NDArray[np.bool_]) -> Scored:
        """
        Return the scores above 0, with the same arguments and the same sums as `score_all`.

        Cost: a sort of the neighbours of the items that vote; it does not depend on the size of the catalogue.
        """
        cells, votes = self._vote(history, wanted)
        if not cells.size:
            return Scored(cells, np.empty(0, np.float32))
        # Cell and place form one integer. A plain sort of these, which numpy vectorises, keeps the order of the votes.
        bits = int(cells.size).bit_length()
        keys = (cells << bits) | np.arange(cells.size)
        keys.sort()
        cells, order = keys >> bits, keys & ((1 << bits) - 1)
        first = np.empty(cells.size, np.bool_)
        first[0] = True
        np.not_equal(cells[1:], cells[:-1], out=first[1:])
        sums = np.bincount(first.cumsum() - 1, votes.take(order))
        return Scored(cells[first], sums.astype(np.float32))

    def _vote(self, history: RowLists, wanted: NDArray[np.bool_]) -> tuple[I64, F64]:
        """Return the cell, line * I + row, and the strength of every vote, in the order of the histories."""
        users, items = history.ends.size - 1, self.catalogue
        counts = (np.minimum(history.sizes(), self.voters) * wanted.take(self.parts, axis=0)).reshape(-1)
        line = np.arange(counts.size).repeat(counts)
        place = np.arange(line.size) - (counts.cumsum() - counts).take(line)
        part = line // users
        user = line - part * users
        rows = history.rows.take(history.ends.take(user) + place) + part * items
        sizes = self.sizes.take(rows)
        ends = sizes.cumsum()
        entries = np.arange(int(ends[-1]) if ends.size else 0) + (self.starts.take(rows) - (ends - sizes)).repeat(sizes)
        cells = ((self.parts.take(part) * users + user) * items).repeat(sizes)
        cells += self.items.take(entries)
        votes = (self.fade[part, place] + self.even[part, counts.take(line)]).repeat(sizes)
        votes *= self.weights.take(entries)
        return cells, votes

    def terms(self, history: I64, rows: I64, weights: F64) -> F64:
        """Return the votes of each item of *history* (H,) for *rows* (R,), times the *weights* (V,) of the views; (H, R)."""
        votes = np.zeros((history.size, rows.size))
        for part, weight in enumerate(weights.take(self.parts).tolist()):
            count = min(history.size, int(self.voters[part, 0])) if weight else 0
            for place, row in enumerate(history[:count].tolist()):
                owner = part * self.catalogue + row
                own = slice(self.starts[owner], self.starts[owner] + self.sizes[owner])
                strength = weight * (self.fade[part, place] + self.even[part, count])
                votes[place] += strength * (self.weights[own] @ (self.items[own][:, None] == rows))
        return votes


@dataclass(frozen=True, slots=True)
class _Part:
    """The votes of a view for known or for new items; see `Views`."""

    view: int
    starts: I64
    sizes: I64
    voters: int
    fade: F64
    even: F64


def _split(view: Neighbours, number: int, offset: int, *, known: int) -> list[_Part]:
    """Return the parts of *view*, whose entries start at *offset*: the second one if some items are new."""
    places, voters = np.arange(_MOST_VOTERS), view.voters()
    fade = np.where(places < voters, np.exp2(places / -view.half_life) if view.half_life else 1.0, 0.0)
    none = np.zeros(_MOST_VOTERS + 1)
    starts, sizes = view.ends[:-1] + offset, np.diff(view.ends)
    if known >= sizes.size:
        return [_Part(number, starts, sizes, voters, fade, none)]
    is_known = view.items < known
    before = np.diff(np.concatenate(([0], is_known.cumsum())).take(view.ends))
    if not np.array_equal(is_known, np.arange(is_known.size) < (view.ends[:-1] + before).repeat(sizes)):
        raise ShapeMismatchError("neighbours: in each row, known items must come before new ones")
    even = np.concatenate(([0.0], fade.cumsum() / (places + 1)))
    return [
        _Part(number, starts, before, voters, fade, none),
        _Part(number, starts + before, sizes - before, _MOST_VOTERS, (1 - _EVEN_SHARE) * fade, _EVEN_SHARE * even),
    ]


def _joined(parts: Sequence[NDArray[_T]], dtype: type[_T]) -> NDArray[_T]:
    return np.concatenate(parts).astype(dtype, copy=False) if parts else np.empty(0, dtype)
