"""
Count pairs of items in histories, and derive each item's neighbours from the counts.

With times, a pair (a, b) counts distance**-0.5 for every user whose history has b within 20 items after a, or fewer
for large data. Without times, a pair counts 1 for every user with both items; data with times can be counted in this way
too. A view of the counts sets the weight of the reverse order and the discount of well-known items:

    weight[a, b] = (pairs[a, b] + backward * pairs[b, a]) / users[a]**source_exponent / users[b]**target_exponent

Only each item's strongest neighbours are kept.

Sources: Ludewig & Jannach 2018 (sequential rules, decay by distance); Deshpande & Karypis 2004 (item-to-item scores,
discount by popularity).
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array

from recrank.neighbours import Neighbours
from topk.item_table import F32, I64

# Largest distance between the items of a pair; smaller if the pairs would not fit into memory.
_REACH, _SHORTEST_REACH = 20, 5
_DECAY = 0.5
_MOST_PAIRS = 60_000_000
# Regardless of the order, at most this number of items of a history form pairs, because the number of pairs grows by the
# square. Data with times has the pairs in order, too, so these pairs get less memory.
_MOST_UNORDERED = 200
_MOST_TOGETHER = 20_000_000
_BLOCK_PAIRS = 4_000_000

# Neighbours kept per item; fewer in a large catalogue, to limit memory and the time of a request.
_MOST_NEIGHBOURS, _LEAST_NEIGHBOURS, _MOST_ENTRIES = 200, 16, 6_000_000


@dataclass(frozen=True)
class View:
    """
    A rule that derives neighbours from counted pairs.

    Attributes:
        backward: Weight of a pair in the reverse order, 0 to 1.
        source_exponent: Discount of well-known items of the history.
        target_exponent: Discount of well-known neighbours.
        half_life: Places back in the history at which a vote counts half; with 0, all votes count the same.
        together: Whether a pair counts 1 for every user with both items, although the data has times.
    """

    backward: float
    source_exponent: float
    target_exponent: float
    half_life: float
    together: bool = False


@dataclass(frozen=True)
class Pairs:
    """
    Counted pairs.

    Attributes:
        counts: (I, I) sparse float32; with times, the row is the earlier item, the column the later one.
        users: (I,) int64, users per item.
        together: (I, I) sparse float32, users with both items; None if no view needs it.
    """

    counts: csr_array
    users: I64
    together: csr_array | None = None

    def neighbours(self, view: View, *, only: NDArray[np.bool_] | None = None) -> Neighbours:
        """
        Return the neighbours that *view* derives from the counts.

        Args:
            view: The rule.
            only: (I,) bool, items that get neighbours; None for all items.

        Raises:
            ValueError: *view* needs the users with both items, which were not counted.

        Cost: a sort of the pairs of these items, in blocks that limit the memory.
        """
        counts = self.together if view.together else self.counts
        if counts is None:
            raise ValueError("the users with both items of a pair were not counted; count the pairs with together=True")
        reverse = csr_array(counts.T.tocsr()) if view.backward else None
        parts = [
            self._strongest(csr_array(counts[rows]), rows, view, reverse, only) for rows in _row_blocks(counts.indptr)
        ]
        sizes, targets, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
        return Neighbours(np.concatenate(([0], np.cumsum(sizes))), targets, weights, view.half_life)

    def _strongest(
        self, matrix: csr_array, rows: slice, view: View, reverse: csr_array | None, only: NDArray[np.bool_] | None
    ) -> tuple[I64, NDArray[np.int32], F32]:
        """Return the number of neighbours of each of *rows*, whose counts are *matrix*, the neighbours and their weights."""
        if reverse is not None:
            matrix = csr_array(matrix + view.backward * reverse[rows])
        sources, targets, counts = (
            np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr)),
            matrix.indices,
            matrix.data,
        )
        if only is not None:
            wanted = only[rows][sources]
            sources, targets, counts = sources[wanted], targets[wanted], counts[wanted]
        known = np.maximum(self.users, 1).astype(np.float64)
        weights = (
            counts * (known[rows] ** -view.source_exponent)[sources] * (known**-view.target_exponent)[targets]
        ).astype(np.float32)
        kept = _strongest(sources, targets, weights, items=self.users.size)
        return np.bincount(sources[kept], minlength=matrix.shape[0]), targets[kept].astype(np.int32), weights[kept]


def count_pairs(histories: Sequence[NDArray[np.int32]], *, items: int, ordered: bool, together: bool = False) -> Pairs:
    """
    Count pairs of items in *histories*.

    Args:
        histories: Item columns per user, distinct; oldest first if *ordered*.
        items: Number of columns.
        ordered: Whether histories are in the order of time.
        together: Whether to count the users with both items, too, if *ordered*.

    Cost: about 20 pairs per item of a history if *ordered*. Users with both items cost the square of the length of each
        history, and 20 million pairs at most if *ordered*.
    """
    users = np.bincount(np.concatenate(histories), minlength=items).astype(np.int64)
    if not ordered:
        return Pairs(_count_together(histories, items, most=_MOST_UNORDERED), users)
    sizes = np.array([len(each) for each in histories], np.int64)
    reach = int(np.clip(_MOST_PAIRS // max(int(sizes.sum()), 1), _SHORTEST_REACH, _REACH))
    total: csr_array = csr_array(coo_array((items, items), dtype=np.float32))
    for sources, targets, weights in _blocks(histories, reach):
        total = csr_array(total + coo_array((weights, (sources, targets)), shape=(items, items)).tocsr())
    lengths = range(1, _MOST_UNORDERED + 1)
    most = bisect_right(lengths, _MOST_TOGETHER, key=lambda length: int((np.minimum(sizes, length) ** 2).sum()))
    return Pairs(total, users, _count_together(histories, items, most=max(most, 2)) if together else None)


Entries = tuple[NDArray[np.int32], NDArray[np.int32], F32]


def _row_blocks(ends: NDArray[np.integer]) -> Iterator[slice]:
    """Yield rows in blocks of about _BLOCK_PAIRS entries."""
    cuts = np.searchsorted(ends, np.arange(0, int(ends[-1]), _BLOCK_PAIRS)).tolist()
    for start, end in pairwise(sorted({0, *cuts, ends.size - 1})):
        yield slice(start, end)


def _count_together(histories: Sequence[NDArray[np.int32]], items: int, *, most: int) -> csr_array:
    """Return the users with both items of each pair, (I, I); at most *most* items of a history form pairs."""
    # Items are taken from the whole history at equal distances: without times, the history is in the order of the ids.
    chosen = [history[:: -(-len(history) // most)] if len(history) else history for history in histories]
    ends = np.concatenate(([0], np.cumsum([len(each) for each in chosen], dtype=np.int64)))
    indices = np.concatenate(chosen)
    seen = csr_array((np.ones(indices.size, np.float32), indices, ends), shape=(len(histories), items))
    counts = csr_array(csr_array(seen.T.tocsr()) @ seen)
    counts.data[counts.indices == np.repeat(np.arange(items, dtype=np.int32), np.diff(counts.indptr))] = 0
    counts.eliminate_zeros()
    counts.sort_indices()
    return counts


def _blocks(histories: Sequence[NDArray[np.int32]], reach: int) -> Iterator[Entries]:
    parts: list[Entries] = []
    held = 0
    for history in histories:
        for entries in _ordered(history, reach):
            parts.append(entries)
            held += entries[0].size
        if held > _BLOCK_PAIRS:
            yield _joined(parts)
            parts, held = [], 0
    if parts:
        yield _joined(parts)


def _ordered(history: NDArray[np.int32], reach: int) -> Iterator[Entries]:
    for distance in range(1, min(reach, len(history) - 1) + 1):
        yield history[:-distance], history[distance:], _constant(len(history) - distance, distance**-_DECAY)


def _constant(size: int, value: float) -> F32:
    return np.full(size, value, np.float32)


def _joined(parts: Sequence[Entries]) -> Entries:
    sources, targets, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
    return sources, targets, weights


def _strongest(sources: I64, targets: NDArray[np.int32], weights: F32, *, items: int) -> I64:
    """Return positions of each source's strongest entries, ties by lower target, grouped by source; *items* in all."""
    most = min(_MOST_NEIGHBOURS, max(_LEAST_NEIGHBOURS, _MOST_ENTRIES // items))
    strong = _reaching(sources, weights, most)
    sources, targets, weights = sources[strong], targets[strong], weights[strong]
    order = np.lexsort((targets, -weights, sources))
    sizes = np.bincount(sources)
    place = np.arange(order.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return strong[order[place < most]]


def _reaching(sources: I64, weights: F32, most: int) -> I64:
    """Return positions of entries that reach the *most*-th largest of their source; *sources* rise. No sort is needed."""
    ends = np.concatenate(([0], np.cumsum(np.bincount(sources))))
    reached = np.ones(weights.size, np.bool_)
    for source in np.flatnonzero(np.diff(ends) > most).tolist():
        own = slice(ends[source], ends[source + 1])
        reached[own] = weights[own] >= np.partition(weights[own], -most)[-most]
    return reached.nonzero()[0]
