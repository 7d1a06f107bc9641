"""
Item-to-item scores: each item of the history votes for its neighbours.

    score[u, j] = sum over places p of the history  2**(-p / half_life) * weight[history_p, j]

Place 0 is the newest item. The neighbours and their weights were counted in training (offline/pairs.py). A user's
votes are added in the order of the history, so a score has the same bits in every batch.

Sources: Sarwar et al. 2001, "Item-based collaborative filtering"; Ludewig & Jannach 2018, "Evaluation of session-based
recommendation algorithms" (sequential rules).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.ranking.candidates import RankedBatch, rank_candidates
from recsys.ranking.item_table import F32, F64, I64, ShapeMismatchError
from recsys.ranking.row_lists import RowLists

# Items more than this number of half-lives back in the history do not vote.
_FAINTEST = 5
# Items of a history that vote, at most.
_MOST_VOTERS = 100
# Sums per block of users, 2 MiB, which stay in cache.
_BLOCK_CELLS = 262_144


@dataclass(frozen=True, slots=True)
class Scored:
    """
    The items with scores above 0, for every user of a batch.

    Attributes:
        cells: (N,) int64, user * items + row, in rising order.
        scores: (N,) float32, above 0.
    """

    cells: I64
    scores: F32

    def at(self, cells: I64) -> F32:
        """Return the scores of *cells*; a cell without a score has 0."""
        if not self.cells.size:
            return np.zeros(cells.size, np.float32)
        place = np.minimum(np.searchsorted(self.cells, cells), self.cells.size - 1)
        return np.where(self.cells[place] == cells, self.scores[place], np.float32(0))

    def best(self, *, users: int, items: int, limit: int) -> RankedBatch:
        """Return each user's *limit* best items."""
        owners = self.cells // items
        counts = np.bincount(owners, minlength=users)
        return rank_candidates(self.cells - owners * items, self.scores, counts=counts, limit=limit)


@dataclass(frozen=True, slots=True)
class Neighbours:
    """
    The neighbours of every item, and the half-life of their votes.

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

    def score(self, history: RowLists, *, closed: I64) -> Scored:
        """
        Score the neighbours of every user's history.

        Args:
            history: Distinct rows of the catalogue per user, newest first; may be empty.
            closed: (M,) int64 cells that get no score, in rising order.

        Cost: one addition per neighbour of the items that vote, and one pass over users * I sums.
        """
        items, users = self.ends.size - 1, history.ends.size - 1
        step = max(1, _BLOCK_CELLS // items)
        voters = history.newest(self._voters())
        parts = [self._score_block(voters, start, min(start + step, users), closed) for start in range(0, users, step)]
        return Scored(np.concatenate([cells for cells, _ in parts]), np.concatenate([scores for _, scores in parts]))

    def _score_block(self, voters: RowLists, start: int, stop: int, closed: I64) -> tuple[I64, F32]:
        items = self.ends.size - 1
        rows = voters.rows[voters.ends[start] : voters.ends[stop]]
        counts = np.diff(voters.ends[start : stop + 1])
        owners = np.repeat(np.arange(stop - start), counts)
        strengths = self._fade()[np.arange(rows.size) - np.repeat(np.cumsum(counts) - counts, counts)]
        sizes = self.ends[rows + 1] - self.ends[rows]
        ends = np.cumsum(sizes)
        entries = np.arange(int(ends[-1]) if ends.size else 0) + np.repeat(self.ends[rows] - (ends - sizes), sizes)
        cells = np.repeat(owners * items, sizes) + self.items[entries]
        votes = self.weights[entries] * np.repeat(strengths, sizes)
        sums = np.bincount(cells, votes, (stop - start) * items)
        low, high = np.searchsorted(closed, (start * items, stop * items))
        sums[closed[low:high] - start * items] = 0
        scored = sums.nonzero()[0]
        return scored + start * items, sums[scored].astype(np.float32)

    def _voters(self) -> int:
        return min(_MOST_VOTERS, int(np.ceil(_FAINTEST * self.half_life))) if self.half_life else _MOST_VOTERS

    def _fade(self) -> F64:
        """Return the strength of each place. The length is constant, so the bits do not depend on the batch."""
        places = np.arange(self._voters())
        return np.asarray(np.exp2(places / -self.half_life) if self.half_life else np.ones(places.size), np.float64)
