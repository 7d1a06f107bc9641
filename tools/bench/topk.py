"""
Benchmark of the scoring kernel, compared with a plain matrix product and FAISS on the same data.

    wide       users @ items.T, block by block into one buffer, on two BLAS threads; without a selection
    tall       items @ users.T, the faster layout; the better of two BLAS threads and two Python threads
    faiss      IndexFlatIP, two threads
    kernel     ours, two Python threads, BLAS limited to one
    excluding  ours, with 2,000 excluded items per user
    filtered   ours, with a filter that 0.1, 1, 10 or 50 % of the items pass

Rounds alternate between them. The threads of BLAS and FAISS spin for a while after a call, and would take a core from
the next contestant. Therefore the benchmark waits until they sleep. It does not time the calls of the first 50 ms,
because two threads that wake often share a core at first.

The kernel's result is compared bit for bit with a full stable sort. The benchmark also times the fold-in of a batch of
users, and measures recall and time of the approximate index on clustered vectors, which resemble those of real
catalogues.
"""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

import faiss
import numpy as np
from threadpoolctl import ThreadpoolController, threadpool_limits

from recrank.fold_in import FoldIn
from tools.bench.report import BenchReport, BenchTarget, ReportRow
from topk.approximate import ApproximateIndex
from topk.item_table import F32, I64, ItemTable, grid_bits, round_to_grid
from topk.row_lists import RowLists
from topk.scoring import penalty_pays, picks_pay, score_candidates, score_rows_of

TimedCall = Callable[[], object]

THREADS = 2
_BLOCK_ROWS = 8192
_BURST_S = 0.002
# Time to call before the timed calls, and time until the threads of another contestant sleep.
_WARM_UP_S = 0.05
_REST_S = 0.1
_HISTORY = 100
# Shares of the catalogue that the filters leave.
_SHARES = {"filtered_0.1": 0.001, "filtered_1": 0.01, "filtered_10": 0.1, "filtered_50": 0.5}
# Largest time of a filtered answer as a multiple of the unfiltered one.
_MOST_TIME = {"filtered_0.1": 1.1, "filtered_1": 1.1, "filtered_10": 1.1, "filtered_50": 1.5}


@dataclass(frozen=True)
class TopkCase:
    """One comparison: sizes of the catalogue and the batch, items per user, and dimensions of the vectors."""

    items: int
    users: int = 32
    limit: int = 100
    dims: int = 64


@dataclass(frozen=True)
class Contestant:
    """A function to time, and its number of BLAS threads."""

    call: TimedCall
    blas_threads: int


def measure(*, quick: bool) -> BenchReport:
    """Measure catalogues of 1,000 to 1,000,000 items, for one user and a batch of 32, and the fold-in."""
    sizes = (1000, 5000) if quick else (1000, 17_632, 100_000, 1_000_000)
    cases = [TopkCase(items, users) for items in sizes for users in (1, 32)]
    faiss.omp_set_num_threads(THREADS)
    with ThreadPoolExecutor(THREADS) as pool:
        rows = [_compare(case, pool, rounds=2 if quick else 101, budget_s=0.5 if quick else 12.0) for case in cases]
        index_targets = _measure_index(sizes[-1], pool, rounds=2 if quick else 21)
    fold_ms = {dims: _time_fold_in(dims, rounds=3 if quick else 21) for dims in (64, 128)}
    return BenchReport("topk", rows, [*_targets(rows, fold_ms), *index_targets])


def _targets(rows: list[ReportRow], fold_ms: dict[int, float]) -> list[BenchTarget]:
    found = {(row["items"], row["users"]): row for row in rows}
    bounds = [("wide", 1_000_000, 1.5), ("faiss", 1_000_000, 0.6), ("wide", 100_000, 2.0), ("faiss", 100_000, 0.9)]
    bounds.append(("faiss", 1000, 1.3))
    ratios = [
        BenchTarget(f"kernel / {other}, {items:,} items", row["kernel_ms"] / row[f"{other}_ms"], "<=", bound)
        for other, items, bound in bounds
        if (row := found.get((items, 32)))
    ]
    ratios += [
        BenchTarget(
            f"{name} % / kernel, {items:,} items, {users} users", row[f"{name}_ms"] / row["kernel_ms"], "<=", most
        )
        for (items, users), row in found.items()
        for name, most in _MOST_TIME.items()
        if items == max(each for each, _ in found)
    ]
    unequal = sum(not row["equals_full_sort"] for row in rows)
    folds = [BenchTarget(f"fold-in of 32 users x {_HISTORY} items, {d} factors, ms", ms, "<=", 5 if d == 64 else 20)
             for d, ms in fold_ms.items()]  # fmt: skip
    return [*ratios, BenchTarget("answers that differ from a full sort", unequal, "<=", 0), *folds]


def _compare(case: TopkCase, pool: Executor, *, rounds: int, budget_s: float) -> ReportRow:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((case.items, case.dims), dtype=np.float32)
    users = rng.standard_normal((case.users, case.dims), dtype=np.float32)
    table = ItemTable.of(vectors)
    samples = _take_turns(_contestants(case, users, table, pool), rounds=rounds, budget_s=budget_s)
    median = {name: statistics.median(times) * 1e3 for name, times in samples.items()}
    median["tall"] = min(median.pop("tall, BLAS"), median.pop("tall, Python"))
    return {
        "items": case.items,
        "users": case.users,
        "limit": case.limit,
        "dims": case.dims,
        **{f"{name}_ms": round(median[name], 4) for name in ("wide", "tall", "faiss", "kernel", "excluding", *_SHARES)},
        "best_kernel_ms": round(min(samples["kernel"]) * 1e3, 4),
        "equals_full_sort": all(
            _equals_full_sort(users, table, case.limit, rows) for rows in (None, *_filtered_rows(case).values())
        ),
    }


def _contestants(case: TopkCase, users: F32, table: ItemTable, pool: Executor) -> dict[str, Contestant]:
    index = faiss.IndexFlatIP(case.dims)
    index.add(table.vectors)
    rng = np.random.default_rng(1)
    excluded = RowLists.of([rng.choice(case.items, min(2000, case.items // 2), replace=False) for _ in users])

    def kernel(exclude: RowLists | None = None) -> object:
        return score_candidates(users, table, limit=case.limit, exclude=exclude, workers=THREADS, pool=pool)

    def filtered(rows: I64) -> TimedCall:
        nobody = RowLists.of([[] for _ in users])
        if picks_pay(rows.size, items=case.items, users=case.users):
            return lambda: score_rows_of(
                users, table, rows, limit=case.limit, exclude=nobody, workers=THREADS, pool=pool
            )
        penalty, closed = np.full(case.items, -np.inf, np.float32), np.setdiff1d(np.arange(case.items), rows)
        penalty[rows] = 0
        by_penalty = penalty_pays(rows.size, items=case.items, users=case.users)
        return lambda: score_candidates(
            users,
            table,
            limit=case.limit,
            unavailable=None if by_penalty else closed,
            penalty=penalty if by_penalty else None,
            workers=THREADS,
            pool=pool,
        )

    return {
        "wide": Contestant(_wide_product(users, table.vectors), THREADS),
        "tall, BLAS": Contestant(_tall_product(users, table.vectors, pool, 1), THREADS),
        "tall, Python": Contestant(_tall_product(users, table.vectors, pool, THREADS), 1),
        "faiss": Contestant(lambda: index.search(users, case.limit), THREADS),
        "kernel": Contestant(kernel, 1),
        "excluding": Contestant(lambda: kernel(excluded), 1),
        **{name: Contestant(filtered(rows), 1) for name, rows in _filtered_rows(case).items()},
    }


def _filtered_rows(case: TopkCase) -> dict[str, I64]:
    """Return random rows for each share, at least one row."""
    rng = np.random.default_rng(4)
    return {
        name: np.sort(rng.choice(case.items, max(1, round(case.items * share)), replace=False))
        for name, share in _SHARES.items()
    }


def _wide_product(users: F32, items: F32) -> TimedCall:
    out = np.empty((len(users), min(_BLOCK_ROWS, len(items))), np.float32)

    def run() -> None:
        for start in range(0, len(items), _BLOCK_ROWS):
            block = items[start : start + _BLOCK_ROWS]
            np.matmul(users, block.T, out=out[:, : len(block)])

    return run


def _tall_product(users: F32, items: F32, pool: Executor, workers: int) -> TimedCall:
    rows = min(_BLOCK_ROWS, -(-len(items) // workers))
    out = np.empty((workers, rows, len(users)), np.float32)
    transposed = np.ascontiguousarray(users.T)

    def share(worker: int) -> None:
        for start in range(worker * rows, len(items), workers * rows):
            block = items[start : start + rows]
            np.matmul(block, transposed, out=out[worker, : len(block)])

    return (lambda: list(pool.map(share, range(workers)))) if workers > 1 else (lambda: share(0))


def _take_turns(entries: dict[str, Contestant], *, rounds: int, budget_s: float) -> dict[str, list[float]]:
    """Return seconds per call, one sample per contestant and round."""
    control = ThreadpoolController()
    samples: dict[str, list[float]] = {name: [] for name in entries}
    end = time.perf_counter() + budget_s
    for _ in range(rounds):
        for name, entry in entries.items():
            with control.limit(limits=entry.blas_threads, user_api="blas"):
                samples[name].append(_timed(entry.call))
            if entry.blas_threads > 1:
                time.sleep(_REST_S)
        if time.perf_counter() > end:
            break
    return samples


def _timed(call: TimedCall) -> float:
    """Return seconds per call: after calls to warm up, the mean over two milliseconds of calls, at least one."""
    start, calls, passed = time.perf_counter(), 0, 0.0
    while passed < _WARM_UP_S:
        call()
        calls += 1
        passed = time.perf_counter() - start
    repeats = max(1, int(_BURST_S * calls / passed))
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def _equals_full_sort(users: F32, table: ItemTable, limit: int, rows: I64 | None) -> bool:
    """Tell whether the answer, of *rows* only if given, is that of a full stable sort."""
    if rows is None:
        got = score_candidates(users, table, limit=limit)
    else:
        got = score_rows_of(users, table, rows, limit=limit, exclude=RowLists.of([[] for _ in users]))
    on_grid = round_to_grid(users, grid_bits(users.shape[1]))
    scores = np.empty(len(table.vectors), np.float32)
    for user, vector in enumerate(on_grid):
        for start in range(0, scores.size, _BLOCK_ROWS):
            scores[start : start + _BLOCK_ROWS] = table.vectors[start : start + _BLOCK_ROWS].astype(np.float64) @ vector
        chosen = np.arange(scores.size) if rows is None else rows
        order = chosen[np.argsort(-scores[chosen], kind="stable")[:limit]]
        found = got.ids[user, : order.size], got.scores[user, : order.size]
        if not (np.array_equal(found[0], order) and np.array_equal(found[1], scores[order])):
            return False
    return True


def _measure_index(items: int, pool: Executor, *, rounds: int) -> list[BenchTarget]:
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((1000, 64))

    def clustered(count: int) -> F32:
        return (centres[rng.integers(0, 1000, count)] + rng.standard_normal((count, 64))).astype(np.float32)

    table, users = ItemTable.of(clustered(items)), clustered(32)
    index = ApproximateIndex(table, probes=32)
    calls = {
        "exact": Contestant(lambda: score_candidates(users, table, limit=100, workers=THREADS, pool=pool), 1),
        "index": Contestant(lambda: index.search(users, limit=100), 1),
    }
    samples = _take_turns(calls, rounds=rounds, budget_s=10)
    ratio = statistics.median(samples["index"]) / statistics.median(samples["exact"])
    return [
        BenchTarget(f"approximate / exact, {items:,} clustered items", ratio, "<=", 0.5),
        BenchTarget(
            f"recall@100 of the approximate index, {items:,} clustered items", index.measure_recall(users), ">=", 0.9
        ),
    ]


def _time_fold_in(dims: int, *, rounds: int) -> float:
    """Return the median milliseconds of folding in 32 users of 100 items each."""
    rng = np.random.default_rng(2)
    items = rng.standard_normal((17_632, dims), dtype=np.float32)
    fold = FoldIn(items, rng.gamma(3, 1, dims).astype(np.float32), prior_strength=0.5)
    history = RowLists.of([rng.choice(len(items), _HISTORY, replace=False) for _ in range(32)])
    priors = rng.standard_normal((32, dims)) * 0.1
    with threadpool_limits(1, user_api="blas"):
        return statistics.median(_timed(lambda: fold.users(history, priors=priors)) for _ in range(rounds)) * 1e3
