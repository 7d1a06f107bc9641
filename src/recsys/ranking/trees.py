"""
The learned ranker: an ensemble of regression trees as plain arrays, evaluated for all candidates in a few passes.

Every inner node compares a feature with its threshold. If the feature is above the threshold, the node removes the leaves
to its left. A candidate reaches the leftmost leaf that no node removes. A bit mask per node thus replaces the walk from
node to node (Lucchese et al. 2015, "QuickScorer").

The nodes of each column are sorted by their thresholds. The place of a value among these thresholds decides all of them,
so `_Lookup` joins the masks of all trees in advance for each place.

The score is the sum of the leaves' values. The values are multiples of 1 / `STEPS`, so the sums are exact, and a batch
gives the same bits as each request alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from topk.item_table import F32, F64, I64

# Leaves of a tree, at most: the bits of a mask.
MOST_LEAVES = 8
STEPS = 2**16

# Candidates of a block: the scratch of larger blocks would not stay in the cache.
_BLOCK = 1024
_ALL = np.uint8(0xFF)
_MASKS = 1 << MOST_LEAVES
# The lowest bit of each mask.
_LOWEST = np.array([(mask & -mask).bit_length() - 1 for mask in range(_MASKS)], np.int8)
_LOWEST[0] = 0
# Trees whose masks form one number.
_TOGETHER = 8


@dataclass(frozen=True)
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
        """
        Return the score of each row of *features* (N, F), which are finite; (N,).

        Cost: for each row, a binary search for each column, and one addition for each tree.
        """
        columns, lookup = features.T, self._lookup
        parts = [lookup.score(columns[:, start : start + _BLOCK]) for start in range(0, len(features), _BLOCK)]
        return np.concatenate(parts) if parts else np.empty(0, np.float32)

    @cached_property
    def _lookup(self) -> "_Lookup":
        return _Lookup.of(self)


@dataclass(frozen=True, slots=True)
class _Lookup:
    """
    The ensemble, sorted for scoring. W words of eight masks hold the masks of all trees.

    Attributes:
        columns: For each column that a node reads: the column, its K thresholds in rising order, and (K + 1, W) uint64,
            the leaves that stay if a value is above the first 0 to K thresholds.
        values: (256 * trees,) float64, the value of the leaf that each tree reaches with each mask.
        firsts: (trees,) int64, the place of each tree's values.
    """

    columns: list[tuple[int, F32, NDArray[np.uint64]]]
    values: F64
    firsts: I64

    @classmethod
    def of(cls, ranker: TreeRanker) -> Self:
        trees = -(-len(ranker.features) // _TOGETHER) * _TOGETHER
        owners, places = np.nonzero(ranker.masks != _ALL)
        read, above = ranker.features[owners, places], ranker.thresholds[owners, places]
        columns = []
        for column in np.unique(read).tolist():
            nodes = np.flatnonzero(read == column)
            nodes = nodes[np.argsort(above[nodes], kind="stable")]
            masks = np.full((nodes.size + 1, trees), _ALL)
            masks[np.arange(nodes.size) + 1, owners[nodes]] = ranker.masks[owners[nodes], places[nodes]]
            columns.append((column, above[nodes], np.bitwise_and.accumulate(masks).view(np.uint64)))
        values = np.zeros((trees, _MASKS))
        values[: len(ranker.values)] = ranker.values[:, _LOWEST]
        return cls(columns, values.reshape(-1), np.arange(trees) * _MASKS)

    def score(self, features: F32) -> F32:
        """Return the score of each column of *features* (F, N)."""
        masks = np.full((features.shape[1], self.firsts.size // _TOGETHER), np.iinfo(np.uint64).max, np.uint64)
        for column, thresholds, left in self.columns:
            masks &= left.take(thresholds.searchsorted(features[column]), axis=0)
        leaves = self.values.take(masks.view(np.uint8) + self.firsts)
        return np.asarray(leaves.sum(axis=1), np.float32)
