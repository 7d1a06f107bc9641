"""
Exact top-k by inner product over the whole catalogue. A user gets the same bits alone and in any batch.

A score is float32(sum over d of user[d] * item[d]). The sum is exact (see `item_table`), so every way to compute it
gives the same result. Small catalogues are scored in float64. Large catalogues are screened in float32 (see
`screening`); the remaining items, little more than *limit* per user, are then scored in float64.
"""

from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from topk.candidates import RankedBatch, group_by_user, rank_candidates, rank_table
from topk.item_table import F32, F64, I64, ItemTable, ShapeMismatchError, grid_bits, lengths, round_to_grid
from topk.row_lists import RowLists
from topk.screening import Cells, Excluded, Plan, Screen, hopeful, rounding_margin, screen_blocks

# The cost of a product is about (users + 6) * items: the items are read even for a batch of one. A share of this cost
# takes about a millisecond, the least that is worth another thread.
_COST_PER_WORKER = 600_000
# Items that remain after screening are scored user by user, with 1 MiB of vectors at a time.
_SCRATCH_BYTES = 1 << 20
_LARGE_BATCH = 8


@dataclass(frozen=True, slots=True)
class UserBatch:
    """
    A validated batch of users.

    Attributes:
        users: (U, D) float64 on the grid; float32 holds the same values.
        items, limit, exclude, unavailable, penalty: Arguments of `score_candidates`.
    """

    users: F64
    items: ItemTable
    limit: int
    exclude: RowLists | None
    unavailable: I64 | None
    penalty: F32 | None = None


def score_candidates(
    users: F32,
    items: ItemTable,
    *,
    limit: int,
    exclude: RowLists | None = None,
    unavailable: I64 | None = None,
    penalty: F32 | None = None,
    workers: int = 1,
    pool: Executor | None = None,
) -> RankedBatch:
    """
    Keep each user's best *limit* items by inner product.

    Row u equals, bit for bit, the answer for a batch holding only user u.

    Args:
        users: (U, D) float32, U >= 1; one vector per request.
        items: The catalogue; same D and artefact version as *users*.
        limit: Items wanted per user, >= 1.
        exclude: Rows that the user may not get, in any order, repeated or not.
        unavailable: (N,) int64 rows that no user may get.
        penalty: (I,) float32 with the same meaning: -inf for a row that no user may get, else 0. It is faster for a
            lone user and many rows, and slower for a batch.
        workers: Threads that share a large catalogue. Limit BLAS to one thread: its own threads wait for each other in
            every product, and for scheduler ticks on a busy machine.
        pool: Runs the workers; at least *workers* threads. Without it, the caller's thread does the work.

    Returns:
        ids (U, limit) int64, scores (U, limit) float32, best first; ties by lower item row. Row u has counts[u]
        real entries, then -1 / -inf.

    Raises:
        ShapeMismatchError: D differs, lists do not fit the batch, or rows lie outside the catalogue.
        NotFiniteError: a number in *users* is NaN, infinite or above `LARGEST_ENTRY`.

    Cost: O(U*I*D) multiply-adds. Scratch: U*I*14 bytes up to `DENSE_ITEMS`. Above that, a few MiB per worker and at
    most 32 MiB in total at any catalogue size, even if ties make every item a candidate.
    Source: Koren, Bell & Volinsky 2009, eq. 1 (scoring only).
    """
    batch = _checked(users, items, limit=limit, exclude=exclude, unavailable=unavailable, penalty=penalty)
    if items.exact is not None:
        return _score_all(batch, items.exact)
    worth = (len(users) + 6) * len(items) // _COST_PER_WORKER
    return _screen_and_score(batch, workers=max(1, min(workers, worth)), pool=pool)


def picks_pay(rows: int, *, items: int, users: int) -> bool:
    """
    Tell whether `score_rows_of` is faster than `score_candidates` without the other rows.

    Reading scattered rows takes several times as long as a lone user's product, and less than that of a large batch.
    """
    return rows * (4 if users < _LARGE_BATCH else 2) <= items


def penalty_pays(rows: int, *, items: int, users: int) -> bool:
    """
    Tell whether `score_candidates` leaves out all rows but *rows* faster by a penalty than by their positions.

    The penalty costs one addition per item, which numpy vectorises for a lone user only.
    """
    return users == 1 and (items - rows) * 16 >= items


def score_rows_of(
    users: F32,
    items: ItemTable,
    rows: I64,
    *,
    limit: int,
    exclude: RowLists,
    workers: int = 1,
    pool: Executor | None = None,
) -> RankedBatch:
    """
    Keep each user's best *limit* of *rows* only, which are (N,) int64 and rise.

    The other arguments and the result are those of `score_candidates`, and so are the bits of the scores.

    Cost: that of `score_candidates` for a catalogue of N items, plus a copy of each block of vectors.
    """
    if not rows.size:
        shape = (len(users), limit)
        return RankedBatch(np.full(shape, -1), np.full(shape, -np.inf, np.float32), np.zeros(len(users), np.int64))
    found = score_candidates(
        users, items.pick(rows), limit=limit, exclude=exclude.positions(rows), workers=workers, pool=pool
    )
    return RankedBatch(np.where(found.ids >= 0, rows[found.ids], -1), found.scores, found.counts)


def score_found(
    users: F32, items: ItemTable, found: I64, *, limit: int, exclude: RowLists | None = None
) -> RankedBatch:
    """
    Score only the items *found* by an index, exactly.

    Args:
        users: (U, D) float32, U >= 1.
        items: The catalogue.
        found: (U, N) int64 rows of the catalogue, distinct per user, padded with -1.
        limit: Items wanted per user.
        exclude: Rows that the user may not get.

    Returns:
        The same fields as `score_candidates`.

    Raises:
        ShapeMismatchError, NotFiniteError: as `score_candidates`.

    Cost: O(U*N*D).
    """
    batch = _checked(users, items, limit=limit, exclude=exclude, unavailable=None)
    count = len(users)
    cells = (found * count + np.arange(count)[:, None])[found >= 0]
    if exclude is not None:
        cells = cells[~np.isin(cells, exclude.rows * count + exclude.owners())]
    return _score_cells(batch, cells)


def score_rows(users: F32, items: ItemTable, rows: I64, *, counts: I64) -> F32:
    """
    Score chosen items exactly, with the same scores as `score_candidates`.

    Args:
        users: (U, D) float32, U >= 1.
        items: The catalogue.
        rows: (N,) int64 rows of the catalogue, grouped by user.
        counts: (U,) int64, the number of each user's rows; their sum is N.

    Returns:
        (N,) float32.

    Raises:
        ShapeMismatchError, NotFiniteError: as `score_candidates`.

    Cost: O(N*D).
    """
    batch = _checked(users, items, limit=1, exclude=None, unavailable=None)
    if items.exact is not None:
        sums = (batch.users @ items.exact).reshape(-1)
        starts = np.arange(counts.size) * len(items)
        return sums.take(np.repeat(starts, counts) + rows).astype(np.float32)
    return _exact_sums(batch, rows, counts).astype(np.float32)


def score_catalogue(users: F32, items: ItemTable) -> F64:
    """
    Score the whole of a small catalogue exactly.

    Args:
        users: (U, D) float32, U >= 1.
        items: A catalogue with exact vectors.

    Returns:
        (U, I) float64, the sums that `score_candidates` rounds.

    Raises:
        ShapeMismatchError, NotFiniteError: as `score_candidates`.
    """
    if items.exact is None:
        raise ShapeMismatchError(f"{len(items)} items are too many to score completely")
    return np.asarray(round_to_grid(users, grid_bits(users.shape[1])) @ items.exact)


def _checked(
    users: F32,
    items: ItemTable,
    *,
    limit: int,
    exclude: RowLists | None,
    unavailable: I64 | None,
    penalty: F32 | None = None,
) -> UserBatch:
    rows, dims = len(items), items.vectors.shape[1]
    if users.ndim != 2 or users.shape[1] != dims or len(users) == 0 or limit < 1:
        raise ShapeMismatchError(f"users {users.shape} against {dims} dimensions, limit {limit}")
    if exclude is not None:
        exclude.check(users=len(users), items=rows)
    if unavailable is not None and unavailable.size and not 0 <= unavailable.min() <= unavailable.max() < rows:
        raise ShapeMismatchError(f"unavailable rows must lie in 0..{rows - 1}")
    if penalty is not None and penalty.shape != (rows,):
        raise ShapeMismatchError(f"penalty {penalty.shape} for {rows} rows")
    return UserBatch(round_to_grid(users, grid_bits(dims)), items, limit, exclude, unavailable, penalty)


def _score_all(batch: UserBatch, exact: F64) -> RankedBatch:
    sums = batch.users @ exact
    scores = sums.astype(np.float32)
    if batch.exclude is not None:
        scores.reshape(-1)[batch.exclude.cells(sums.shape[1])] = -np.inf
    if batch.unavailable is not None:
        scores[:, batch.unavailable] = -np.inf
    if batch.penalty is not None:
        scores += batch.penalty
    return rank_table(scores, limit=batch.limit)


def _screen_and_score(batch: UserBatch, *, workers: int, pool: Executor | None) -> RankedBatch:
    users = len(batch.users)
    plan = Plan.of(items=len(batch.items), users=users, workers=workers)

    def settle(cells: Cells) -> tuple[Cells, F32]:
        best = _score_cells(batch, cells)
        kept = best.ids >= 0
        return (best.ids * users + np.arange(users)[:, None])[kept], best.scores[kept]

    reach = lengths(batch.users) * batch.items.longest
    indifferent = (reach == 0).nonzero()[0]
    screen = Screen(
        plan=plan,
        items=batch.items,
        users=np.ascontiguousarray(batch.users.T, np.float32),
        margin=_margin(batch, reach),
        limit=batch.limit,
        excluded=_excluded(batch, plan),
        unavailable=_unavailable(batch, plan),
        penalty=batch.penalty,
        settle=settle,
    )
    if pool is None or workers == 1:
        cells, values = screen_blocks(screen, plan.share(0, 1))
    else:
        parts = list(pool.map(lambda worker: screen_blocks(screen, plan.share(worker, workers)), range(workers)))
        cells, values = (np.concatenate(column) for column in zip(*parts, strict=True))
    if cells.size > 3 * users * batch.limit // 2:
        cells = cells[hopeful(cells, values, margin=screen.margin, limit=batch.limit)[0]]
    if indifferent.size:
        cells = np.concatenate([cells, *(_first_cells(batch, int(user)) for user in indifferent)])
    return _score_cells(batch, cells)


def _margin(batch: UserBatch, reach: F64) -> F64:
    """
    Return the margin of the screen, (U,) float64.

    It is -inf for a user whose scores are all 0, so screening finds no item for that user; see `_first_cells`.
    """
    return np.where(reach == 0, -np.inf, rounding_margin(reach, dimensions=batch.users.shape[1]))


def _first_cells(batch: UserBatch, user: int) -> Cells:
    """
    Return the first items that are not excluded, as the candidates of a user for whom all items score 0.

    Screening would keep the whole catalogue, because all items tie.
    """
    closed = np.empty(0, np.int64) if batch.unavailable is None else batch.unavailable
    if batch.penalty is not None:
        closed = np.concatenate([closed, np.flatnonzero(batch.penalty)])
    if batch.exclude is not None:
        closed = np.concatenate([closed, batch.exclude.part(user)])
    enough = min(len(batch.items), batch.limit + closed.size)
    return np.setdiff1d(np.arange(enough), closed) * len(batch.users) + user


def _excluded(batch: UserBatch, plan: Plan) -> Excluded | None:
    if batch.exclude is None:
        return None
    cells = batch.exclude.rows * plan.users + batch.exclude.owners()
    return Excluded.by_block(cells, blocks=plan.blocks, block_size=plan.block_rows * plan.users)


def _unavailable(batch: UserBatch, plan: Plan) -> Excluded | None:
    if batch.unavailable is None:
        return None
    rows = np.sort(batch.unavailable, kind="stable")  # one pass if the rows rise already
    ends = np.searchsorted(rows, np.arange(plan.blocks + 1) * plan.block_rows)
    return Excluded(rows, ends.tolist())


def _score_cells(batch: UserBatch, cells: Cells) -> RankedBatch:
    users = len(batch.users)
    rows = cells // users
    owners = cells - rows * users
    order, counts = group_by_user(owners, users)
    rows = rows[order]
    sums = _exact_sums(batch, rows, counts)
    return rank_candidates(rows, sums.astype(np.float32), counts=counts, limit=batch.limit)


def _exact_sums(batch: UserBatch, rows: I64, counts: I64) -> F64:
    """Return the exact inner products of *rows* (N,), grouped by user, with their users. Cost: O(N*D)."""
    sums = np.empty(rows.size, np.float64)
    step = max(1, _SCRATCH_BYTES // (12 * batch.users.shape[1]))
    end = 0
    for user, count in zip(batch.users, counts.tolist(), strict=True):
        start, end = end, end + count
        for first in range(start, end, step):
            part = slice(first, min(first + step, end))
            np.matmul(batch.items.take(rows[part]).astype(np.float64), user, out=sums[part])
    return sums
