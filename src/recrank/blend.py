"""
The blend: combine the scores that several sources give the same candidates into one.

    blended[u, i] = sum over sources s of  weight[n, s] * score_s[u, i] / best_s[u]

best_s is the user's highest score from source s, so the scores of each source are at most 1. The weights depend on n,
the length of the user's history: training chose different weights for short and long histories (offline/choice.py).
Users who were away get separate weights, because recent popularity suits them better than their old taste.
Each step treats every candidate separately, so the batch does not change the bits of a score.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topk.item_table import F32, F64, I64, ShapeMismatchError

# A user whose newest interaction is at least this old was away: one day, more than any session.
AWAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Blend:
    """
    The weights of the sources by length of the history, and those for users who were away.

    Attributes:
        lengths: (L,) int64, rising from 0; row l serves histories of at least lengths[l] items, up to the next length.
        weights: (L, S) float32, at least 0, one column per source.
        away: (S,) float32, weights for users who were away and have a history; None if they have those of the others.
    """

    lengths: I64
    weights: F32
    away: F32 | None = None

    def check(self, *, sources: int) -> None:
        """
        Refuse weights that do not fit the lengths or the number of *sources*.

        Raises:
            ShapeMismatchError: a shape is wrong, the lengths do not rise from 0, a weight is below 0, or a row has no
                weight above 0.
        """
        if self.weights.shape != (self.lengths.size, sources) or not self.lengths.size:
            raise ShapeMismatchError(f"blend {self.weights.shape} for {self.lengths.size} lengths, {sources} sources")
        if self.lengths[0] != 0 or (np.diff(self.lengths) <= 0).any():
            raise ShapeMismatchError("lengths of the blend must rise from 0")
        if self.away is not None and self.away.shape != (sources,):
            raise ShapeMismatchError(f"blend for users who were away {self.away.shape} for {sources} sources")
        table = self.weights if self.away is None else np.vstack([self.weights, self.away])
        if (table < 0).any() or (table.max(axis=1) <= 0).any():
            raise ShapeMismatchError("each row of the blend must have a weight above 0, and no weight below 0")

    def rows(self, sizes: I64, away: NDArray[np.bool_]) -> F32:
        """Return the weights (U, S) of users. *sizes* (U,) are the lengths of their histories, *away* (U,) tells who was away."""
        rows = self.weights[self.lengths.searchsorted(sizes, side="right") - 1]
        if self.away is not None and away.any():
            rows[away & (sizes > 0)] = self.away
        return rows


def normalise(scores: F32, best: F32, counts: I64) -> F64:
    """
    Divide each user's scores by the user's best score; the result is 0 if the best score is not above 0.

    Args:
        scores: (S, N) float32, scores of each source, grouped by user.
        best: (S, U) float32, best score of each user.
        counts: (U,) int64, number of candidates of each user.
    """
    bests = best.astype(np.float64).repeat(counts, axis=1)
    return np.divide(scores, bests, out=np.zeros(scores.shape), where=bests > 0)


def blend(columns: F64, weights: F32, counts: I64) -> F32:
    """
    Return the weighted sums of normalised scores.

    Args:
        columns: (S, N) float64, normalised scores of each source, grouped by user.
        weights: (U, S) float32, weights of the sources for each user.
        counts: (U,) int64, number of candidates of each user.

    Returns:
        (N,) float32.
    """
    table = weights.T.astype(np.float64)
    weighed = table.repeat(counts, axis=1) if counts.size > 1 else table
    total: F64 = np.add.reduce(weighed * columns, axis=0)
    return total.astype(np.float32)
