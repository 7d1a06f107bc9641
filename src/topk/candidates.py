"""
Cut ragged lists of scored candidates to each user's best.

A ragged list is a flat array grouped by user, with a count per user: the first counts[0] entries belong to user 0.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from topk.item_table import F32, I64

# Every finite score reaches this bound; -inf, which marks excluded items, does not.
LOWEST = np.finfo(np.float32).min

_LAST = np.int64(np.iinfo(np.int64).max)
_ZERO = np.float32(0.0)
_ROW_MASK = np.int64(0xFFFF_FFFF)
_T = TypeVar("_T", np.float32, np.int64)


@dataclass(frozen=True, slots=True)
class RankedBatch:
    """
    Each user's best items, best first; ties by lower item row.

    Attributes:
        ids: (U, limit) int64 item rows; -1 from counts[u] on.
        scores: (U, limit) float32; -inf from counts[u] on.
        counts: (U,) int64, the number of real entries.
    """

    ids: I64
    scores: F32
    counts: I64


def rank_candidates(rows: I64, scores: F32, *, counts: I64, limit: int) -> RankedBatch:
    """
    Sort each user's candidates and keep *limit*.

    Each candidate becomes one integer: the negated score in the high bits, the row in the low bits. A plain sort of
    these distinct integers, which numpy vectorises, therefore also orders ties by row.

    Args:
        rows: (N,) int64, grouped by user; 0 <= row < 2**32.
        scores: (N,) float32 of the same candidates, finite.
        counts: (U,) int64, adding up to N.
        limit: Items wanted per user.

    Cost: O(U * C log C) and U*C*16 bytes of scratch, C = max(counts).
    """
    # Subtracting from zero, here and below, removes -0.0. The sign of a sum of zeros depends on the order of summation.
    keys = _in_order((_ZERO - scores).view(np.int32)).astype(np.int64)
    keys <<= 32
    keys |= rows
    table = spread(keys, counts, fill=_LAST, width=limit)
    if table.shape[1] > 8 * limit:
        table = np.partition(table, limit - 1, axis=1)[:, :limit]
    table.sort(axis=1)  # the memory is that of *table* or *keys*, so no argument changes
    table = table[:, :limit]
    ids = table & _ROW_MASK
    best = _ZERO - _in_order((table >> 32).astype(np.int32)).view(np.float32)
    kept = np.minimum(counts, limit)
    if kept.min() < limit:
        vacant = np.arange(limit) >= kept[:, None]
        ids[vacant] = -1
        best[vacant] = -np.inf
    return RankedBatch(ids, best, kept)


def rank_table(scores: F32, *, limit: int) -> RankedBatch:
    """
    Sort each user's scores of the whole catalogue and keep *limit*.

    Args:
        scores: (U, I) float32; -inf marks an item that the user may not get.
        limit: Items wanted per user.
    """
    users, items = scores.shape
    reached = scores >= reachable(scores, limit=limit)[:, None]
    cells = reached.reshape(-1).nonzero()[0]
    if users == 1:
        counts, rows = np.array([cells.size]), cells
    else:
        starts = np.arange(0, users * items + 1, items)
        ends = cells.searchsorted(starts)
        counts = ends[1:] - ends[:-1]
        rows = cells - np.repeat(starts[:-1], counts)
    return rank_candidates(rows, scores.reshape(-1)[cells], counts=counts, limit=limit)


def _in_order(bits: NDArray[np.int32]) -> NDArray[np.int32]:
    """Map the bits of float32 to int32 values of the same order. The function is its own inverse."""
    return bits ^ ((bits >> 31) & np.int32(0x7FFF_FFFF))


def group_by_user(owners: I64, users: int) -> tuple[I64, I64]:
    """Return a stable order that groups *owners* (N,), and each user's count (U,). Cost: O(N), a radix sort."""
    if users == 1:
        return np.arange(owners.size), np.array([owners.size])
    narrow = owners.astype(np.min_scalar_type(users))
    return np.argsort(narrow, kind="stable"), np.bincount(owners, minlength=users)


def spread(values: NDArray[_T], counts: I64, *, fill: _T, width: int) -> NDArray[_T]:
    """Return a ragged list as a table (U, C), C = max(counts, width), padded with *fill*; it may share memory."""
    width = max(int(counts.max()), width)
    if values.size == counts.size * width:
        return values.reshape(counts.size, width)
    table = np.full((counts.size, width), fill, values.dtype)
    table[np.arange(width) < counts[:, None]] = values
    return table


def kth_largest(values: NDArray[np.float32], counts: I64, k: int) -> F32:
    """Return each user's k-th largest value (U,), `LOWEST` for users with fewer values."""
    table = spread(values, counts, fill=np.float32(LOWEST), width=k)
    place = table.shape[1] - k
    return np.partition(table, place, axis=1)[:, place]


def reachable(scores: F32, *, limit: int) -> F32:
    """
    Return a finite value per user that at least *limit* of the user's entries reach, without sorting all entries.

    The limit-th largest of the maxima of disjoint groups is such a value. With 2.5 groups per wanted item, about a
    quarter more entries than necessary reach it.

    Args:
        scores: (U, N) float32; -inf marks a missing entry.
        limit: At least 1.

    Returns:
        (U,) float32; `LOWEST` where there are too few entries.
    """
    users, items = scores.shape
    if limit >= items:
        return np.full(users, LOWEST, np.float32)
    size = max(1, items * 2 // (limit * 5))
    groups = items // size
    maxima = scores
    if size > 1:
        maxima = np.maximum.reduce(scores[:, : size * groups].reshape(users, size, groups), axis=1)
    place = groups - limit
    return np.maximum(np.partition(maxima, place, axis=1)[:, place], LOWEST)
