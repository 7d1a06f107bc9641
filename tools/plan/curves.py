"""Curves fitted to measurements: the time of a batch, and throughput over concurrency."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls


class TooFewError(Exception):
    """There are too few measurements to fit a curve."""


@dataclass(frozen=True)
class BatchCost:
    """
    The time of a batch of n: `per_item_s * n + fixed_s`.

    Attributes:
        per_item_s: Time that each request adds.
        fixed_s: Time that a batch of any size takes; batching shares it.
        sizes: Number of different batch sizes in the data. A single size does not separate the two costs.
    """

    per_item_s: float
    fixed_s: float
    sizes: int = 2

    def time_s(self, size: float) -> float:
        """Return the time of a batch of *size*."""
        return self.per_item_s * size + self.fixed_s

    def ceiling_rps(self, max_batch_size: int) -> float:
        """Return the requests per second that one slot ranks if every batch is full."""
        return max_batch_size / self.time_s(max_batch_size)


def fit_batch_cost(batches: Sequence[tuple[int, float]]) -> BatchCost:
    """
    Fit `a * n + b` with a, b >= 0 to *batches*: pairs (size, seconds), one pair for each request of a batch.

    The fit uses the median of each size, because single batches can take very long on a shared machine. The weight of a
    size is its number of batches. If all batches have the same size, the fit assigns their whole time to the items, so
    it never predicts a gain by batching that was not measured.

    Raises:
        TooFewError: *batches* is empty.
    """
    by_size: dict[int, list[float]] = defaultdict(list)
    for size, seconds in batches:
        by_size[size].append(seconds)
    if not by_size:
        raise TooFewError("no answer has the batch's size and time in its receipt (Server-Timing: batch, model)")
    sizes = np.array(sorted(by_size), dtype=float)
    medians = np.array([np.median(by_size[int(size)]) for size in sizes])
    if len(by_size) == 1:
        return BatchCost(float(medians[0] / sizes[0]), 0.0, sizes=1)
    # Each batch appears once per request, so divide by its size. Residuals are relative, because noise grows with time.
    weights = np.sqrt([len(by_size[int(size)]) / size for size in sizes]) / medians
    design = np.column_stack([sizes, np.ones_like(sizes)])
    (per_item_s, fixed_s), _ = nnls(design * weights[:, None], medians * weights)
    return BatchCost(float(per_item_s), float(fixed_s), sizes=len(by_size))


@dataclass(frozen=True)
class Scalability:
    """
    Gunther's universal scalability law: throughput at N callers is `rate N / (1 + contention (N-1) + crosstalk N (N-1))`.

    Attributes:
        rate_rps: Throughput of a single caller.
        contention: Share of the work that is serialised; its inverse bounds the speed-up.
        crosstalk: Cost of each pair of callers. If it is positive, throughput falls after a peak.

    Source: Gunther, Guerrilla Capacity Planning (2007), chapter 4.
    """

    rate_rps: float
    contention: float
    crosstalk: float

    def rps(self, callers: float) -> float:
        """Return the throughput at *callers*."""
        return (
            self.rate_rps * callers / (1 + self.contention * (callers - 1) + self.crosstalk * callers * (callers - 1))
        )

    @property
    def limit_rps(self) -> float:
        """The maximum throughput over all numbers of callers; infinite if throughput has no bound."""
        if self.crosstalk:
            return self.rps(max(1.0, math.sqrt(max(0.0, 1 - self.contention) / self.crosstalk)))
        return self.rate_rps / self.contention if self.contention else math.inf

    @property
    def knee(self) -> float:
        """
        The number of callers beyond which waiting grows faster than throughput; infinite if throughput has no bound.

        At the knee, the line of a system without waiting (N times one caller's rate) meets the limit.
        """
        return self.limit_rps / self.rate_rps


def fit_scalability(points: Sequence[tuple[float, float]]) -> Scalability:
    """
    Fit the law to (callers, requests a second) by least squares on relative deviations.

    N/X is linear in the unknowns. So the best non-negative fit is unique and needs no initial value.

    Raises:
        TooFewError: *points* has fewer than three different numbers of callers.
    """
    if len({callers for callers, _ in points}) < 3:
        raise TooFewError("a curve needs at least three different numbers of callers; add levels")
    callers, rps = (np.array(column, dtype=float) for column in zip(*points, strict=True))
    design = np.column_stack([np.ones_like(callers), callers - 1, callers * (callers - 1)])
    scale = rps / callers
    (seconds, waits, pairs), _ = nnls(design * scale[:, None], np.ones_like(callers))
    if seconds <= 0:
        # The fit explains the data by waiting alone: one server that a single caller keeps busy.
        seconds = float(callers[0] / rps[0])
    return Scalability(1 / float(seconds), float(waits / seconds), float(pairs / seconds))
