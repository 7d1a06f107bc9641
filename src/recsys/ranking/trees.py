"""
The learned ranker: an ensemble of regression trees as plain arrays, evaluated for all candidates in a few passes.

Every inner node compares a feature with its threshold. If the feature is above the threshold, the node removes the leaves
to its left. A candidate reaches the leftmost leaf that no node removes. All nodes are therefore compared together, and a
bit mask per node replaces the walk from node to node (Lucchese et al. 2015, "QuickScorer").

The score is the sum of the leaves' values. The values are multiples of 1 / `STEPS`, so the sums are exact, and a batch
gives the same bits as each request alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from topk.item_table import F32, I64

# Leaves of a tree, at most: the bits of a mask.
MOST_LEAVES = 8
STEPS = 2**16

# Cells of a block of answers: larger blocks would not stay in the cache.
_BLOCK_CELLS = 1 << 18
_ALL = np.uint8(0xFF)
# The lowest bit of each mask.
_LOWEST = np.array([(mask & -mask).bit_length() - 1 for mask in range(1 << MOST_LEAVES)], np.int8)
_LOWEST[0] = 0


@dataclass(frozen=True, slots=True)
class TreeRanker:
    """
    A ranker of trees.

    Attributes:
        names: The columns that the nodes ask about.
        least_history: Users with fewer known items get the list of the blend.
        features: (T, M) int32, the column of each node of each tree.
        thresholds: (T, M) float32; a spare node has the largest number, so that its answer is always yes.
        masks: (T, M) uint8, the leaves that remain if the feature is above the threshold.
        values: (T, L) float32, values of the leaves from left to right.
    """

    names: tuple[str, ...]
    least_history: int
    features: NDArray[np.int32]
    thresholds: F32
    masks: NDArray[np.uint8]
    values: F32

    @classmethod
    def read(cls, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> "Self | None":
        """
        Return the ranker in the *arrays* of an artefact and the *facts* of its manifest; None without one.

        Raises:
            KeyError, ValueError: an array is missing or does not fit the others.
        """
        if "ranker_features" not in arrays:
            return None
        ranker = cls(
            tuple(facts["names"]),
            int(facts["least_history"]),
            arrays["ranker_features"],
            arrays["ranker_thresholds"],
            arrays["ranker_masks"],
            arrays["ranker_values"],
        )
        ranker.check()
        return ranker

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays for an artefact."""
        return {f"ranker_{name}": getattr(self, name) for name in ("features", "thresholds", "masks", "values")}

    def check(self) -> None:
        """
        Refuse arrays that do not fit each other or the columns.

        Raises:
            ValueError: a shape, a column or a type does not fit.
        """
        shape = self.features.shape
        fits = len(shape) == 2 and self.thresholds.shape == self.masks.shape == shape
        if not (fits and self.masks.dtype == np.uint8 and self.values.shape == (shape[0], MOST_LEAVES)):
            raise ValueError(f"ranker {shape}, {self.thresholds.shape}, {self.masks.shape}, {self.values.shape}")
        if self.features.size and not 0 <= self.features.min() <= self.features.max() < len(self.names):
            raise ValueError(f"nodes of the ranker must read columns 0 to {len(self.names) - 1}")

    def score(self, features: F32, counts: I64) -> F32:
        """Return the score (N,) of each row of *features* (N, F). Cost: a few operations for each row and node."""
        columns = np.ascontiguousarray(features.T)
        step = max(1, _BLOCK_CELLS // max(self.features.size, 1))
        parts = [self._score(columns[:, start : start + step]) for start in range(0, len(features), step)]
        return np.concatenate(parts) if parts else np.empty(0, np.float32)

    def _score(self, columns: F32) -> F32:
        # Candidates are the last axis, so that each operation reads and writes whole lines.
        is_right = columns[self.features.reshape(-1)] > self.thresholds.reshape(-1, 1)
        left = np.where(is_right, self.masks.reshape(-1, 1), _ALL).reshape(*self.masks.shape, -1)
        leaves = _LOWEST[np.bitwise_and.reduce(left, axis=1)]
        values = self.values.reshape(-1)[leaves + np.arange(len(self.values))[:, None] * MOST_LEAVES]
        return np.asarray(values.sum(axis=0, dtype=np.float64), np.float32)
