"""
Benchmark of batching: rank_items' batcher and model in one process, under closed loops of 1 to 256 callers.

    batched     as shipped: at most 32 requests per batch, at most 64 waiting
    unbatched   the same with batches of one request

A shed caller retries after about 0.1 s, which is sooner than Retry-After asks. The latency of a lone caller is compared
with a direct call of the model.
"""

import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import uvloop
from threadpoolctl import threadpool_limits

from chassis.batching.batcher import Batcher
from chassis.batching.queue import BatchLimits
from chassis.wire.problems import OverloadedError
from offline.als import AlsModel, suggest_settings
from offline.prior import fit_prior
from offline.training import ModelSettings, make_arrays
from recrank.artefact import Artefact, Item, Manifest
from recrank.model import Query, Ranking, RankingModel
from recsys.features import UNKNOWN_FEATURES
from tools.bench.report import BenchReport, BenchTarget, ReportRow

_QUEUE = 64
_RETRY_S = 0.1
_HISTORY = 30
_DIMS = 64


@dataclass(frozen=True)
class BatchingOutcome:
    """Latencies of the answered calls, in seconds, and the number of shed calls in a run of *seconds*."""

    latencies: list[float]
    shed: int
    seconds: float

    @property
    def rps(self) -> float:
        """Answered calls per second."""
        return len(self.latencies) / self.seconds


def measure(*, quick: bool) -> BenchReport:
    """Measure a catalogue of 100,000 items at 1 to 256 callers."""
    items = 2000 if quick else 100_000
    levels = (1, 32, 256) if quick else (1, 2, 4, 8, 16, 32, 64, 128, 256)
    rounds, seconds = (1, 0.2) if quick else (5, 1.0)
    with threadpool_limits(1), ThreadPoolExecutor(2) as pool, ThreadPoolExecutor(1) as executor:
        model = RankingModel(make_artefact(items=items, dims=_DIMS), workers=2, pool=pool)
        queries = make_queries(model.item_ids, 512)
        rows, lone_ms = uvloop.run(_measure(model, queries, executor, levels=levels, rounds=rounds, seconds=seconds))
        full_ms = _time_full_batches(model, queries, rounds=3 if quick else 31)
    return BenchReport("batching", rows, _targets(rows, lone_ms=lone_ms, full_ms=full_ms))


def make_artefact(*, items: int, dims: int) -> Artefact:
    """Return an in-memory model of random vectors, for timing only."""
    rng = np.random.default_rng(0)
    factors = (rng.standard_normal((items, dims)) * 0.1).astype(np.float32)
    gram = np.einsum("id,id->d", factors, factors).astype(np.float32)
    users = factors[:200]
    model = AlsModel(items=factors, gram=gram, ridge=1.0, users=users, counts=rng.integers(1, 1000, items))
    prior = fit_prior([UNKNOWN_FEATURES] * len(users), users, metric=gram + 1.0)
    settings = ModelSettings(suggest_settings(1000, items, 100_000))
    manifest = Manifest("bench", "0", 1, {}, {}, {}, {})
    return Artefact(manifest, make_arrays(model, prior, settings), [Item(f"item_{row}") for row in range(items)])


def make_queries(item_ids: Sequence[str], count: int) -> list[Query]:
    """Return queries with random histories."""
    rng = np.random.default_rng(1)
    histories = rng.integers(0, len(item_ids), (count, _HISTORY))
    return [Query(UNKNOWN_FEATURES, [item_ids[row] for row in history], top_k=10) for history in histories]


async def _measure(
    model: RankingModel,
    queries: Sequence[Query],
    executor: ThreadPoolExecutor,
    *,
    levels: Sequence[int],
    rounds: int,
    seconds: float,
) -> tuple[list[ReportRow], float]:
    limits = {"batched": BatchLimits(max_queue_size=_QUEUE), "unbatched": BatchLimits(1, max_queue_size=_QUEUE)}
    outcomes: dict[tuple[str, int], list[BatchingOutcome]] = {}
    for _ in range(rounds):
        for callers in levels:
            for system, limit in limits.items():
                batcher = Batcher(model.rank, limits=limit, executor=executor)
                outcome = await _drive(batcher, queries, callers=callers, seconds=seconds)
                outcomes.setdefault((system, callers), []).append(outcome)
    lone_ms = await _time_lone_caller(model, queries, executor, rounds=rounds * 40)
    return [_summarise(system, callers, taken) for (system, callers), taken in sorted(outcomes.items())], lone_ms


async def _drive(
    batcher: Batcher[Query, Ranking], queries: Sequence[Query], *, callers: int, seconds: float
) -> BatchingOutcome:
    latencies: list[float] = []
    shed = 0
    draw = random.Random(callers)
    start = last = time.monotonic()
    end = start + seconds

    async def call(number: int) -> None:
        nonlocal shed, last
        while (began := time.monotonic()) < end or not latencies:
            number += callers
            try:
                await batcher.submit(queries[number % len(queries)], deadline=began + 60 + seconds)
            except OverloadedError:
                shed += 1
                # With equal waits, all shed callers would return at the same time and find an empty queue.
                await asyncio.sleep(_RETRY_S * draw.uniform(0.5, 1.5))
            else:
                # Answers after the end do not count, because some callers still wait to retry then. The first answer
                # always counts, so that every outcome has a latency.
                if (now := time.monotonic()) < end or not latencies:
                    latencies.append(now - began)
                    last = now

    await asyncio.gather(*(call(number) for number in range(callers)))
    return BatchingOutcome(latencies, shed, max(seconds, last - start))


async def _time_lone_caller(
    model: RankingModel, queries: Sequence[Query], executor: ThreadPoolExecutor, *, rounds: int
) -> float:
    """Return the median milliseconds that the batcher adds to a lone call of the model."""
    batcher = Batcher(model.rank, limits=BatchLimits(), executor=executor)
    bare, batched = [], []
    for number in range(rounds):
        query = queries[number % len(queries)]
        began = time.perf_counter()
        model.rank([query])
        between = time.perf_counter()
        await batcher.submit(query, deadline=time.monotonic() + 60)
        bare.append(between - began)
        batched.append(time.perf_counter() - between)
    return (statistics.median(batched) - statistics.median(bare)) * 1e3


def _time_full_batches(model: RankingModel, queries: Sequence[Query], *, rounds: int) -> float:
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        model.rank(queries[:32])
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3


def _summarise(system: str, callers: int, outcomes: list[BatchingOutcome]) -> ReportRow:
    latencies = sorted(latency for outcome in outcomes for latency in outcome.latencies)
    return {
        "system": system,
        "callers": callers,
        "rps": round(statistics.median(outcome.rps for outcome in outcomes), 1),
        "p50_ms": round(latencies[len(latencies) // 2] * 1e3, 3),
        "p99_ms": round(latencies[len(latencies) * 99 // 100] * 1e3, 3),
        "shed": sum(outcome.shed for outcome in outcomes),
    }


def _targets(rows: Sequence[ReportRow], *, lone_ms: float, full_ms: float) -> list[BenchTarget]:
    found = {(row["system"], row["callers"]): row for row in rows}
    batched = [row for row in rows if row["system"] == "batched"]
    drop = min(row["rps"] / max(other["rps"] for other in batched[: place + 1]) for place, row in enumerate(batched))
    # The last accepted request waits for the running batch and for a full queue.
    worst_ms = (_QUEUE // 32 + 1) * full_ms
    return [
        BenchTarget("batched / unbatched, rps at 32 callers", found["batched", 32]["rps"] / found["unbatched", 32]["rps"], ">=", 3),
        BenchTarget("time added to a lone call of the model, ms", lone_ms, "<=", 0.3),
        BenchTarget("lowest rps / best rps with fewer callers", drop, ">=", 0.85),
        BenchTarget("p99 at 256 callers / three full batches", found["batched", 256]["p99_ms"] / worst_ms, "<=", 2),
    ]  # fmt: skip
