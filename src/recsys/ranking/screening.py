"""
Finding the few items that can be among a user's best, block by block, in float32.

A block of items is scored by one matrix product and looked at while it is in cache. Only group maxima are compared
with the user's bound (a value that *limit* items are known to reach); only groups that reach it are opened. The
bound is lowered by the rounding error of the product, so nothing that belongs to the answer is lost, and rises as
candidates gather, so little else is kept.

The product is items @ users.T: for the few users of a batch it packs less and runs 1.7 (32 users) to 5 (2 users)
times as fast as users @ items.T, and makes group maxima one contiguous, vectorised operation for all users.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from recsys.ranking.candidates import LOWEST, group_by_user, kth_largest, reachable
from recsys.ranking.item_table import F32, F64, I64

# Scores per block, 2 MiB: still in cache when scanned, and enough items for a first bound that turns most away.
_BLOCK_SCORES = 524_288
_MAX_BLOCK_ROWS = 65_536
# Items per group; each group's maximum is compared with the bound.
_GROUP = 16
# Candidates held per place wanted, or in all, before the bound is worked out anew.
_SLACK = 4
_LEAST_ROOM = 4096

Cells = I64  # places in the (I, U) score matrix: row * U + user


@dataclass(frozen=True, slots=True)
class Plan:
    """How the catalogue is cut: *blocks* of *block_rows* items, a multiple of `_GROUP`; the last may be short."""

    users: int
    block_rows: int
    blocks: int

    @classmethod
    def of(cls, *, items: int, users: int, workers: int) -> "Plan":
        """Blocks that fit the cache, equal in size, and at least one for every worker."""
        blocks = max(workers, -(-items // max(_GROUP, min(_BLOCK_SCORES // users, _MAX_BLOCK_ROWS))))
        rows = -(-items // blocks)
        rows += -rows % _GROUP
        return cls(users, rows, -(-items // rows))

    def share(self, worker: int, workers: int) -> list[int]:
        """
        One worker's blocks, scattered over the catalogue by a golden-ratio stride.

        In a catalogue sorted by rising popularity every block in turn would otherwise beat the bound.
        """
        stride = max(1, round(self.blocks * 0.618))
        while math.gcd(stride, self.blocks) > 1:
            stride += 1
        return [(i * stride) % self.blocks for i in range(worker, self.blocks, workers)]


@dataclass(frozen=True, slots=True)
class Excluded:
    """
    Places of the score matrix to exclude before anything is chosen: cells, or whole rows (for all users).

    Attributes:
        places: (N,) int64, grouped by block.
        ends: blocks + 1 positions; block b owns places[ends[b]:ends[b + 1]].
    """

    places: I64
    ends: list[int]

    @classmethod
    def by_block(cls, places: I64, *, blocks: int, block_size: int) -> "Excluded":
        """Group by block, each *block_size* places long. Cost: O(N), a radix sort of block numbers."""
        owner = places // block_size
        order = np.argsort(owner.astype(np.min_scalar_type(blocks)), kind="stable")
        ends = np.searchsorted(owner[order], np.arange(blocks + 1))
        return cls(places[order], ends.tolist())

    def apply(self, scores: F32, *, block: int) -> None:
        """Exclude places of one block's scores in place: flat for cells, (block_rows, U) for rows."""
        start, end = self.ends[block], self.ends[block + 1]
        if start == end:
            return
        scores[self.places[start:end] - block * len(scores)] = -np.inf


@dataclass(frozen=True, slots=True)
class Screen:
    """
    What the workers of one batch share.

    Attributes:
        vectors: (I, D) float32.
        users: (D, U) float32, C-contiguous.
        margin: (U,) float64, how far below the limit-th float32 score an item of the exact answer may appear; -inf
            for a user of whom nothing is to be found.
        limit: Items wanted per user.
        excluded: Cells to leave out.
        unavailable: Rows to leave out for everybody.
        settle: Cuts cells to each user's best *limit* by exact score; returns their cells and scores.
    """

    plan: Plan
    vectors: F32
    users: F32
    margin: F64
    limit: int
    excluded: Excluded | None
    unavailable: Excluded | None
    settle: Callable[[Cells], tuple[Cells, F32]]


def screen_blocks(screen: Screen, blocks: Iterable[int]) -> tuple[Cells, F32]:
    """
    Gather every item of *blocks* that may be among a user's best *limit*, and usually little else.

    Returns:
        cells (N,) int64, in no order, and their float32 scores (N,).

    Cost: the matrix product and a quarter (1,000,000 items) to once more (100,000) of it; 3 to 15 MiB of scratch.
    Where nearly everything ties, it costs exact arithmetic on all that does.
    """
    plan = screen.plan
    scores = np.empty((plan.block_rows, plan.users), np.float32)
    groups = scores.reshape(_GROUP, -1)
    maxima = np.empty(groups.shape[1], np.float32)
    reached = np.empty(groups.shape[1], np.bool_)
    candidates = Candidates(screen)
    for block in blocks:
        start = block * plan.block_rows
        rows = screen.vectors[start : start + plan.block_rows]
        np.matmul(rows, screen.users, out=scores[: len(rows)])
        scores[len(rows) :] = -np.inf
        if screen.excluded is not None:
            screen.excluded.apply(scores.reshape(-1), block=block)
        if screen.unavailable is not None:
            screen.unavailable.apply(scores, block=block)
        np.maximum.reduce(groups, axis=0, out=maxima)
        bound = candidates.bound_for(scores, maxima)
        np.greater_equal(maxima, bound, out=reached)
        hits = reached.nonzero()[0]
        if hits.size:
            candidates.add(*_open_groups(groups, hits, bound), first_cell=start * plan.users)
    return candidates.all()


def _open_groups(groups: F32, hits: I64, bound: F32) -> tuple[I64, F32]:
    """Entries of *groups* (G, W) that reach *bound* (W,), looked for in the columns *hits*: flat places, values."""
    if hits.size * 8 > bound.size:
        places = (groups >= bound).reshape(-1).nonzero()[0]
        return places, groups.reshape(-1)[places]
    opened = groups.take(hits, axis=1)
    found = (opened >= bound[hits]).reshape(-1).nonzero()[0]
    member = found // hits.size
    return member * bound.size + hits[found - member * hits.size], opened.reshape(-1)[found]


class Candidates:
    """What one worker has seen reach the bound, and the bound itself."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._cells: list[Cells] = []
        self._values: list[F32] = []
        self._held = 0
        self._room = max(_SLACK * screen.plan.users * screen.limit, _LEAST_ROOM)
        self._bound: F32 | None = None

    def bound_for(self, scores: F32, maxima: F32) -> F32:
        """The bound of every column of a block's groups; taken from these scores themselves in the first block."""
        if self._bound is None:
            limit = self._screen.limit
            groups = maxima.reshape(-1, scores.shape[1])
            sample = groups if len(groups) >= 2 * limit else scores
            self._bound = self._spread(reachable(np.ascontiguousarray(sample.T), limit=limit))
        return self._bound

    def add(self, places: I64, values: F32, *, first_cell: int) -> None:
        """Keep a block's *places*; whenever they are many, work the bound out anew and drop what is below it."""
        for start in range(0, places.size, self._room):  # more than one turn only where most of a block ties
            part = slice(start, start + self._room)
            self._cells.append(places[part] + first_cell)
            self._values.append(values[part])
            self._held += self._cells[-1].size
            if self._held > self._room:
                self._tighten()

    def all(self) -> tuple[Cells, F32]:
        """Everything held: cells and values."""
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
    How far below the limit-th largest float32 score an item of the exact answer may appear; (U,) float64.

    An inner product in float32, summed in any order, with or without fused multiply-adds, is off by at most
    D * 2**-24 * |user| * |item| (Higham 2002, sec. 3.1), and that twice: for the limit-th and for the item. Rounding
    the exact scores to float32 moves both by half a unit in the last place.

    Args:
        reach: (U,) length of each user times that of the longest item.
        dimensions: D.
    """
    margin: F64 = (2 * dimensions + 4) * reach * (1.01 * 2.0**-24)
    return margin + dimensions * 2.0**-120  # for products below the normal range


def hopeful(cells: Cells, values: F32, *, margin: F64, limit: int) -> tuple[I64, F32]:
    """Which candidates can still be among a user's best *limit* (positions), and each user's limit-th value."""
    users = margin.size
    owners = cells - cells // users * users
    order, counts = group_by_user(owners, users)
    kth = kth_largest(values[order], counts, limit)
    return (values >= _lowered(kth, margin)[owners]).nonzero()[0], kth


def _lowered(bound: F32, margin: F64) -> F32:
    """*bound* less *margin*, rounded down; finite, so that what is excluded (-inf) never reaches it."""
    lower = np.maximum(bound - margin, np.float64(LOWEST)).astype(np.float32)
    return np.maximum(np.nextafter(lower, np.float32(LOWEST)), LOWEST)
