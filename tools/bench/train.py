"""
Benchmark of training, compared with a textbook implementation of the same half-epochs.

    ours       stacks rows of equal length and solves the smaller of two systems for each (offline/solver.py)
    textbook   solves a D x D system for every row in turn: Hu, Koren & Volinsky 2008, eq. 4

Both use two threads with one BLAS thread each, start from the same vectors, and have to agree. *training_s* is the time
from records to an artefact on disk.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from offline.als import attention, suggest_settings, train_als
from offline.collection import collect_records
from offline.inputs import FORMATS
from offline.matrix import Ratings, make_ratings
from offline.solver import solve_rows
from offline.training import ModelSettings, train
from recsys.records import HistoryItem, UserRecord
from tools.bench.report import BenchReport, BenchTarget, ReportRow
from topk.item_table import F32

THREADS = 2
LASTFM_SIZED = "as Last.fm 2k"


@dataclass(frozen=True)
class TrainingCase:
    """A data set: its name, and its records as a feature store returns them."""

    name: str
    records: Sequence[UserRecord]


def measure(*, quick: bool, interactions: Path | None = None, format_: str = "csv") -> BenchReport:
    """Measure synthetic data of three sizes and, if given, the file *interactions*."""
    rows = [_measure(case, rounds=2 if quick else 5) for case in _cases(interactions, format_, quick=quick)]
    return BenchReport("train", rows, _targets(rows))


def _cases(interactions: Path | None, format_: str, *, quick: bool) -> Iterator[TrainingCase]:
    if quick:
        yield TrainingCase("toy", make_records(60, 80, 900))
    else:
        yield TrainingCase("as the demo", make_records(1000, 1000, 39_000))
        yield TrainingCase(LASTFM_SIZED, make_records(1892, 17_632, 92_834))
        yield TrainingCase("as MovieLens 1M", make_records(6040, 3706, 1_000_000))
    if interactions:
        source = FORMATS[format_](interactions, items=None, users=None)
        yield TrainingCase(interactions.name, collect_records(source.rows, age_groups={}))


def make_records(users: int, items: int, ties: int) -> list[UserRecord]:
    """Return synthetic users with about *ties* interactions; item popularity and user activity are skewed."""
    random = np.random.default_rng(0)
    popularity = 1 / (np.arange(items) + 10)
    popularity /= popularity.sum()
    activity = random.gamma(2, 1, users)
    counts = np.clip(activity / activity.sum() * ties, 1, items // 2).astype(int)
    records = []
    for user, count in enumerate(counts.tolist()):
        # The *count* smallest exponential variates are a draw by popularity without replacement.
        rows = np.argpartition(random.exponential(1, items) / popularity, count)[:count]
        weights = 1 + random.integers(0, 50, count)
        history = [HistoryItem(f"i{row}", float(each), 0) for row, each in zip(rows, weights, strict=True)]
        records.append(UserRecord(f"u{user}", "unknown", views=count, history=history))
    return records


def _measure(case: TrainingCase, *, rounds: int) -> ReportRow:
    ratings = make_ratings(case.records)
    users, items = ratings.weights.shape
    settings = suggest_settings(users, items, ratings.weights.nnz)
    with _pool() as pool:
        epoch = _Epoch(ratings, settings.factors, pool)
        ours, textbook, difference = _alternate(epoch, rounds)
    seconds, size_bytes = _train(case.records, ModelSettings(settings))
    short = replace(settings, epochs=2)
    bytes_ = {train_als(ratings.weights, short, workers=workers).items.tobytes() for workers in (1, THREADS)}
    return {
        "data": case.name,
        "users": users,
        "items": items,
        "ties": int(ratings.weights.nnz),
        "factors": settings.factors,
        "epoch_s": round(ours, 4),
        "textbook_s": round(textbook, 4),
        "difference": difference,
        "training_s": round(seconds, 2),
        "artefact_mb": round(size_bytes / 1e6, 2),
        "same_bytes": len(bytes_) == 1,
    }


@contextmanager
def _pool() -> Iterator[ThreadPoolExecutor]:
    with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(THREADS) as pool:
        yield pool


class _Epoch:
    """One epoch on fixed initial vectors, in either implementation."""

    def __init__(self, ratings: Ratings, factors: int, pool: ThreadPoolExecutor) -> None:
        weights = ratings.weights
        confidence = attention(weights, 0.42)
        self._by_user = csr_array((confidence, weights.indices, weights.indptr), shape=weights.shape)
        self._by_item = csr_array(self._by_user.T.tocsr())
        self._start = np.random.default_rng(0).standard_normal((weights.shape[1], factors)).astype(np.float32) * 0.1
        self._pool = pool

    def ours(self) -> F32:
        """Return the item vectors after an epoch of our implementation."""
        return self._half(self._by_item, self._half(self._by_user, self._start))

    def textbook(self) -> F32:
        """Return the item vectors after an epoch of the textbook implementation."""
        return self._textbook_half(self._by_item, self._textbook_half(self._by_user, self._start))

    def _half(self, ratings: csr_array, vectors: F32) -> F32:
        rows, columns = ratings.shape
        return solve_rows(
            ratings,
            vectors,
            column_weights=np.full(columns, 0.02),
            row_scale=np.ones(rows),
            ridge=np.full(rows, 3.0),
            pool=self._pool,
        )

    def _textbook_half(self, ratings: csr_array, vectors: F32) -> F32:
        shared = 0.02 * vectors.T @ vectors + 3.0 * np.eye(vectors.shape[1], dtype=np.float32)
        out = np.zeros((ratings.shape[0], vectors.shape[1]), np.float32)

        def solve(row: int) -> None:
            span = slice(ratings.indptr[row], ratings.indptr[row + 1])
            chosen, confidence = vectors[ratings.indices[span]], ratings.data[span]
            out[row] = np.linalg.solve(shared + (chosen * confidence[:, None]).T @ chosen, confidence @ chosen)

        for _ in self._pool.map(solve, range(ratings.shape[0])):
            pass
        return out


def _alternate(epoch: _Epoch, rounds: int) -> tuple[float, float, float]:
    """Return the median seconds of both implementations, and their largest difference relative to the largest entry."""
    seconds: dict[Callable[[], F32], list[float]] = {epoch.ours: [], epoch.textbook: []}
    results = {}
    for _ in range(rounds):
        for call, times in seconds.items():
            began = time.perf_counter()
            results[call] = call()
            times.append(time.perf_counter() - began)
    ours, textbook = results[epoch.ours], results[epoch.textbook]
    medians = [statistics.median(times) for times in seconds.values()]
    return medians[0], medians[1], float(np.abs(ours - textbook).max() / np.abs(textbook).max())


def _train(records: Sequence[UserRecord], settings: ModelSettings) -> tuple[float, int]:
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        train(records, items={}, folder=Path(folder), dataset="bench", settings=settings)
        return time.perf_counter() - began, sum(file.stat().st_size for file in Path(folder).iterdir())


def _targets(rows: list[ReportRow]) -> list[BenchTarget]:
    named = {row["data"]: row for row in rows}
    targets = [
        BenchTarget("largest difference from the textbook", max(row["difference"] for row in rows), "<=", 1e-3),
        BenchTarget(
            "data sets with different bytes by thread count", sum(not row["same_bytes"] for row in rows), "<=", 0
        ),
        BenchTarget("largest artefact, MB", max(row["artefact_mb"] for row in rows), "<=", 30),
    ]
    if row := named.get(LASTFM_SIZED):
        targets.append(BenchTarget(f"training {LASTFM_SIZED}, s", row["training_s"], "<=", 60))
        targets.append(BenchTarget(f"textbook / ours {LASTFM_SIZED}", row["textbook_s"] / row["epoch_s"], ">=", 5))
    return targets
