"""
The blend: several sources' scores of the same candidates become one.

    blended[u, i] = sum over sources s of  weight[n, s] * score_s[u, i] / best_s[u]

best_s is the user's highest score from that source, so every source counts on a scale that ends at 1. The weights
depend on n, the number of items in the user's history: training chose one row of weights for short histories and
another for long ones (offline/choosing.py). Each step works on one candidate alone, so a batch changes no bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recsys.ranking.item_table import F32, F64, I64, ShapeMismatchError


@dataclass(frozen=True, slots=True)
class Blend:
    """
    Weights of the sources by length of the history.

    Attributes:
        lengths: (L,) int64, rising from 0; row l serves histories of lengths[l] items and more.
        weights: (L, S) float32, none below 0, one column per source.
    """

    lengths: I64
    weights: F32

    def check(self, *, sources: int) -> None:
        """
        Refuse weights that do not fit.

        Raises:
            ShapeMismatchError: another number of sources or lengths, lengths that do not rise, or no weight in a row.
        """
        if self.weights.shape != (self.lengths.size, sources) or not self.lengths.size:
            raise ShapeMismatchError(f"blend {self.weights.shape} for {self.lengths.size} lengths, {sources} sources")
        if self.lengths[0] != 0 or (np.diff(self.lengths) <= 0).any():
            raise ShapeMismatchError("lengths of the blend must rise from 0")
        if (self.weights < 0).any() or (self.weights.max(axis=1) <= 0).any():
            raise ShapeMismatchError("each length of the blend must have weights, none below 0")

    def rows(self, sizes: Sequence[int]) -> F32:
        """Return the weights (U, S) for users with histories of *sizes* items."""
        return self.weights[np.searchsorted(self.lengths, sizes, side="right") - 1]


def normalise(scores: F32, best: F32, counts: I64) -> F64:
    """
    Divide each user's scores by the user's best; 0 where the best is not above 0.

    Args:
        scores: (N,) float32, grouped by user.
        best: (U,) float32.
        counts: (U,) int64, candidates of each user.
    """
    bests = np.repeat(best.astype(np.float64), counts)
    return np.divide(scores, bests, out=np.zeros(scores.size), where=bests > 0)


def blend(columns: Sequence[F64], weights: F32, counts: I64) -> F32:
    """
    Add up normalised scores.

    Args:
        columns: Per source (N,) float64, grouped by user.
        weights: (U, S) float32.
        counts: (U,) int64.

    Returns:
        (N,) float32.
    """
    total = np.zeros(columns[0].size)
    for source, column in enumerate(columns):
        total += np.repeat(weights[:, source].astype(np.float64), counts) * column
    return total.astype(np.float32)
