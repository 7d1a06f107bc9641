"""
Find the few items that can be among a user's best, block by block, in float32.

One matrix product scores a block of items, and the scores are read while they are in cache. Each user has a bound, a
value that *limit* items are known to reach. Only the maximum of each group of items is compared with the bound, and
only groups that reach it are searched. The bound is lowered by the rounding error of the product, so no item of the
answer is lost. It rises with the candidates found, so few other items are kept.

The product is items @ users.T. For the few users of a batch, BLAS packs less memory for it, and it runs 1.7 times
(32 users) to 5 times (2 users) as fast as users @ items.T. It also makes the group maxima of all users one
contiguous, vectorised operation.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from topk.candidates import LOWEST, group_by_user, kth_largest, reachable
from topk.item_table import F32, F64, I64, ItemTable

# Scores per block, 2 MiB: they are still in cache when scanned, and give a first bound that most items do not reach.
_BLOCK_SCORES = 524_288
_MAX_BLOCK_ROWS = 65_536
# Items per group; each group's maximum is compared with the bound.
_GROUP = 16
# The bound is recomputed at this number of candidates per wanted item, or at `_LEAST_ROOM` candidates if that is more.
_SLACK = 4
_LEAST_ROOM = 4096

Cells = I64  # places in the (I, U) score matrix: row * U + user


@dataclass(frozen=True, slots=True)
class Plan:
    """
    The division of the catalogue into *blocks* of *block_rows* items.

    *block_rows* is a multiple of `_GROUP`. The last block may be shorter.
    """

    users: int
    block_rows: int
    blocks: int

    @classmethod
    def of(cls, *, items: int, users: int, workers: int) -> "Plan":
        """Return a plan with blocks of equal size that fit into the cache, at least one for every worker."""
        blocks = max(workers, -(-items // max(_GROUP, min(_BLOCK_SCORES // users, _MAX_BLOCK_ROWS))))
        rows = -(-items // blocks)
        rows += -rows % _GROUP
        return cls(users, rows, -(-items // rows))

    def share(self, worker: int, workers: int) -> list[int]:
        """
        Return the blocks of one worker, spread over the catalogue by a golden-ratio stride.

        In the order of a catalogue sorted by rising popularity, every block would exceed the bound of the one before.
        """
        stride = max(1, round(self.blocks * 0.618))
        while math.gcd(stride, self.blocks) > 1:
            stride += 1
        return [(i * stride) % self.blocks for i in range(worker, self.blocks, workers)]


@dataclass(frozen=True, slots=True)
class Excluded:
    """
    Places of the score matrix to exclude before screening: cells, or whole rows for all users.

    Attributes:
        places: (N,) int64, grouped by block.
        ends: blocks + 1 positions; block b owns places[ends[b]:ends[b + 1]].
    """

    places: I64
    ends: list[int]

    @classmethod
    def by_block(cls, places: I64, *, blocks: int, block_size: int) -> "Excluded":
        """Group *places* by blocks of *block_size* places. Cost: O(N), a radix sort of block numbers."""
        owner = places // block_size
        order = np.argsort(owner.astype(np.min_scalar_type(blocks)), kind="stable")
        ends = np.searchsorted(owner[order], np.arange(blocks + 1))
        return cls(places[order], ends.tolist())

    def apply(self, scores: F32, *, block: int) -> None:
        """Exclude places in the *scores* of one block, in place. *scores* is flat for cells, (block_rows, U) for rows."""
        start, end = self.ends[block], self.ends[block + 1]
        if start == end:
            return
        scores[self.places[start:end] - block * len(scores)] = -np.inf


@dataclass(frozen=True, slots=True)
class Screen:
    """
    The input that all workers of one batch share.

    Attributes:
        plan: The division of the catalogue into blocks.
        items: The catalogue.
        users: (D, U) float32, C-contiguous.
        margin: (U,) float64, the largest distance below the limit-th float32 score at which an item of the exact
            answer may appear; -inf for a user who is not screened.
        limit: Items wanted per user.
        excluded: Cells to leave out.
        unavailable: Rows to leave out for all users.
        penalty: (I,) float32, added to the scores of all users: -inf for a row to leave out, else 0.
        settle: Cuts cells to each user's best *limit* by exact score; returns their cells and scores.
    """

    plan: Plan
    items: ItemTable
    users: F32
    margin: F64
    limit: int
    excluded: Excluded | None
    unavailable: Excluded | None
    penalty: F32 | None
    settle: Callable[[Cells], tuple[Cells, F32]]


def screen_blocks(screen: Screen, blocks: Iterable[int]) -> tuple[Cells, F32]:
    """
    Collect every item of *blocks* that may be among a user's best *limit*, and usually few others.

    Returns:
        cells (N,) int64, in no order, and their float32 scores (N,).

    Cost: the matrix product, plus a quarter of its time (1,000,000 items) to the same time again (100,000 items); 3 to
    15 MiB of scratch. If nearly all items tie, all tied items are scored exactly.
    """
    plan = screen.plan
    scores = np.empty((plan.block_rows, plan.users), np.float32)
    groups = scores.reshape(_GROUP, -1)
    maxima = np.empty(groups.shape[1], np.float32)
    reached = np.empty(groups.shape[1], np.bool_)
    candidates = Candidates(screen)
    for block in blocks:
        start = block * plan.block_rows
        rows = screen.items.block(start, start + plan.block_rows)
        np.matmul(rows, screen.users, out=scores[: len(rows)])
        scores[len(rows) :] = -np.inf
        if screen.excluded is not None:
            screen.excluded.apply(scores.reshape(-1), block=block)
        if screen.unavailable is not None:
            screen.unavailable.apply(scores, block=block)
        if screen.penalty is not None:
            scores[: len(rows)] += screen.penalty[start : start + len(rows), None]
        np.maximum.reduce(groups, axis=0, out=maxima)
        bound = candidates.bound_for(scores, maxima)
        np.greater_equal(maxima, bound, out=reached)
        hits = reached.nonzero()[0]
        if hits.size:
            candidates.add(*_open_groups(groups, hits, bound), first_cell=start * plan.users)
    return candidates.all()


def _open_groups(groups: F32, hits: I64, bound: F32) -> tuple[I64, F32]:
    """Return flat places and values of the entries in the columns *hits* of *groups* (G, W) that reach *bound* (W,)."""
    if hits.size * 8 > bound.size:
        places = (groups >= bound).reshape(-1).nonzero()[0]
        return places, groups.reshape(-1)[places]
    opened = groups.take(hits, axis=1)
    found = (opened >= bound[hits]).reshape(-1).nonzero()[0]
    member = found // hits.size
    return member * bound.size + hits[found - member * hits.size], opened.reshape(-1)[found]


class Candidates:
    """The entries of one worker that reached the bound, and the bound itself."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._cells: list[Cells] = []
        self._values: list[F32] = []
        self._held = 0
        self._room = max(_SLACK * screen.plan.users * screen.limit, _LEAST_ROOM)
        self._bound: F32 | None = None

    def bound_for(self, scores: F32, maxima: F32) -> F32:
        """Return the bound of every column of a block's groups. The first block's *scores* give the first bound."""
        if self._bound is None:
            limit = self._screen.limit
            groups = maxima.reshape(-1, scores.shape[1])
            sample = groups if len(groups) >= 2 * limit else scores
            self._bound = self._spread(reachable(np.ascontiguousarray(sample.T), limit=limit))
        return self._bound

    def add(self, places: I64, values: F32, *, first_cell: int) -> None:
        """Keep the *places* of a block. If too many are held, recompute the bound and drop the entries below it."""
        for start in range(0, places.size, self._room):  # more than one pass only if most of a block ties
            part = slice(start, start + self._room)
            self._cells.append(places[part] + first_cell)
            self._values.append(values[part])
            self._held += self._cells[-1].size
            if self._held > self._room:
                self._tighten()

    def all(self) -> tuple[Cells, F32]:
        """Return all held cells and their values."""
        if not self._cells:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        return np.concatenate(self._cells), np.concatenate(self._values)

    def _tighten(self) -> None:
        screen = self._screen
        cells, values = self.all()
        keep, kth = hopeful(cells, values, margin=screen.margin, limit=screen.limit)
        cells, values = cells[keep], values[keep]
        if cells.size * 2 > self._room:
            cells, values = screen.settle(cells)
        self._cells, self._values, self._held = [cells], [values], cells.size
        self._bound = self._spread(kth)

    def _spread(self, kth: F32) -> F32:
        repeats = self._screen.plan.block_rows // _GROUP
        return np.repeat(_lowered(kth, self._screen.margin)[None, :], repeats, axis=0).reshape(-1)


def rounding_margin(reach: F64, *, dimensions: int) -> F64:
    """
    Return the largest distance below the limit-th float32 score at which an item of the exact answer may appear.

    The error of a float32 inner product is at most D * 2**-24 * |user| * |item|, in any order of summation, with or
    without fused multiply-adds (Higham 2002, sec. 3.1). It counts twice, for the limit-th item and for the item
    itself. Rounding the exact scores to float32 moves each of them by half a unit in the last place.

    Args:
        reach: (U,) length of each user's vector times the length of the longest item.
        dimensions: D.

    Returns:
        (U,) float64.
    """
    margin: F64 = (2 * dimensions + 4) * reach * (1.01 * 2.0**-24)
    return margin + dimensions * 2.0**-120  # for products below the normal range


def hopeful(cells: Cells, values: F32, *, margin: F64, limit: int) -> tuple[I64, F32]:
    """Return the positions of candidates that can be among a user's best *limit*, and each user's limit-th value."""
    users = margin.size
    owners = cells - cells // users * users
    order, counts = group_by_user(owners, users)
    kth = kth_largest(values[order], counts, limit)
    return (values >= _lowered(kth, margin)[owners]).nonzero()[0], kth


def _lowered(bound: F32, margin: F64) -> F32:
    """Return *bound* minus *margin*, rounded down. The result is finite, so excluded entries (-inf) never reach it."""
    lower = np.maximum(bound - margin, np.float64(LOWEST)).astype(np.float32)
    return np.maximum(np.nextafter(lower, np.float32(LOWEST)), LOWEST)
