"""
The learned ranker: an ensemble of regression trees as plain arrays, evaluated for all candidates in a few passes.

Every inner node compares a feature with its threshold. If the feature is above the threshold, the node removes the leaves
to its left. A candidate reaches the leftmost leaf that no node removes. A bit mask per node thus replaces the walk from
node to node (Lucchese et al. 2015, "QuickScorer").

The nodes of each column are sorted by their thresholds. The place of a value among these thresholds decides all of them,
so `_Lookup` joins the masks of all trees in advance for each place. The places of all columns are searched together, and
each step halves the thresholds that are left.

The score is the sum of the leaves' values. The values are multiples of 1 / `STEPS`, so the sums are exact, and a batch
gives the same bits as each request alone.
"""

from collections.abc import Mapping, Sequence
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
_BLOCK = 512
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
        lookup = self._lookup
        parts = [lookup.score(features[start : start + _BLOCK]) for start in range(0, len(features), _BLOCK)]
        return np.concatenate(parts) if parts else np.empty(0, np.float32)

    @cached_property
    def _lookup(self) -> "_Lookup":
        return _Lookup.of(self)


@dataclass(frozen=True, slots=True)
class _Lookup:
    """
    The ensemble, sorted for scoring. C columns are read, and P is a power of two above the thresholds of each of them.

    Attributes:
        columns: (C,) int64, the columns.
        levels: For each step of the search, the thresholds (C * 2**step,) that it compares, those of a column together.
        left: (C * P, W) uint64, the leaves of all trees that stay if a value is above the first 0 to P - 1 thresholds of
            a column. A word holds the masks of eight trees.
        values: (256 * trees,) float64, the value of the leaf that each tree reaches with each mask.
        firsts: (trees,) int64, the place of each tree's values.
    """

    columns: I64
    levels: Sequence[F32]
    left: NDArray[np.uint64]
    values: F64
    firsts: I64

    @classmethod
    def of(cls, ranker: TreeRanker) -> Self:
        trees = -(-len(ranker.features) // _TOGETHER) * _TOGETHER
        owners, places = np.nonzero(ranker.masks != _ALL)
        read, above = ranker.features[owners, places], ranker.thresholds[owners, places]
        columns, counts = np.unique(read, return_counts=True)
        steps = int(counts.max(initial=0)).bit_length()
        thresholds = np.full((columns.size, (1 << steps) - 1), np.inf, np.float32)
        masks = np.full((columns.size, 1 << steps, trees), _ALL)
        for line, column in enumerate(columns.tolist()):
            nodes = np.flatnonzero(read == column)
            nodes = nodes[np.argsort(above[nodes], kind="stable")]
            thresholds[line, : nodes.size] = above[nodes]
            masks[line, np.arange(nodes.size) + 1, owners[nodes]] = ranker.masks[owners[nodes], places[nodes]]
        halves = [1 << step for step in reversed(range(steps))]
        values = np.zeros((trees, _MASKS))
        values[: len(ranker.values)] = ranker.values[:, _LOWEST]
        return cls(
            columns.astype(np.int64),
            [thresholds[:, half - 1 :: 2 * half].reshape(-1) for half in halves],
            np.bitwise_and.accumulate(masks, axis=1).reshape(-1, trees).view(np.uint64),
            values.reshape(-1),
            np.arange(trees) * _MASKS,
        )

    def score(self, features: F32) -> F32:
        """Return the score of each row of *features* (N, F)."""
        columns = features.T.take(self.columns, axis=0)
        places = np.repeat(np.arange(len(columns)), len(features)).reshape(columns.shape)
        for thresholds in self.levels:
            is_above = thresholds.take(places) < columns
            places += places
            places += is_above
        masks = np.bitwise_and.reduce(self.left.take(places, axis=0), axis=0)
        leaves = masks.view(np.uint8).astype(np.intp)
        leaves += self.firsts
        # A product with ones adds up several times as fast as `sum`, and the sums are exact in any order.
        return np.asarray(self.values.take(leaves) @ np.ones(self.firsts.size), np.float32)
