"""Curves through what was measured."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls


class TooFewError(Exception):
    """The measurements do not determine the curve."""


@dataclass(frozen=True)
class BatchCost:
    """
    The time of a batch of n: `per_item_s * n + fixed_s`.

    Attributes:
        per_item_s: What each further request adds.
        fixed_s: What a batch costs however small it is: the reason to batch at all.
        sizes: How many different sizes the fit has seen; with one, nothing tells the two apart.
    """

    per_item_s: float
    fixed_s: float
    sizes: int = 2

    def time_s(self, size: float) -> float:
        """Return the time of a batch of *size*."""
        return self.per_item_s * size + self.fixed_s

    def ceiling_rps(self, max_batch_size: int) -> float:
        """Return how many requests a second one slot ranks when every batch is full."""
        return max_batch_size / self.time_s(max_batch_size)


def fit_batch_cost(batches: Sequence[tuple[int, float]]) -> BatchCost:
    """
    Fit `a * n + b` with a, b >= 0 to batches seen by their requests: (size, seconds), one entry for each request.

    A size counts by its median, because on a shared machine single batches take as long as they like, weighted by how
    many batches of it there were. With batches of one size only, all of their time is taken as the items': no gain by
    batching is promised that was not seen.

    Raises:
        TooFewError: no batch was seen.
    """
    seen: dict[int, list[float]] = defaultdict(list)
    for size, seconds in batches:
        seen[size].append(seconds)
    if not seen:
        raise TooFewError("no answer told of its batch (Server-Timing: batch, model)")
    sizes = np.array(sorted(seen), dtype=float)
    medians = np.array([np.median(seen[int(size)]) for size in sizes])
    if len(seen) == 1:
        return BatchCost(float(medians[0] / sizes[0]), 0.0, sizes=1)
    # Each batch was seen once by each of its requests. Deviations count relative to the time, as noise does.
    weights = np.sqrt([len(seen[int(size)]) / size for size in sizes]) / medians
    design = np.column_stack([sizes, np.ones_like(sizes)])
    (per_item_s, fixed_s), _ = nnls(design * weights[:, None], medians * weights)
    return BatchCost(float(per_item_s), float(fixed_s), sizes=len(seen))


@dataclass(frozen=True)
class Scalability:
    """
    Gunther's universal scalability law: throughput at N callers is `rate N / (1 + contention (N-1) + crosstalk N (N-1))`.

    Attributes:
        rate_rps: Throughput of a single caller.
        contention: Share of the work that waits for other work; its inverse bounds the speed-up.
        crosstalk: What each pair of callers costs; above zero, throughput falls again after a peak.

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
        """The most it gives, at any number of callers; infinite where nothing bounds it."""
        if self.crosstalk:
            return self.rps(max(1.0, math.sqrt(max(0.0, 1 - self.contention) / self.crosstalk)))
        return self.rate_rps / self.contention if self.contention else math.inf

    @property
    def knee(self) -> float:
        """
        The number of callers from which on waiting grows faster than throughput; infinite where nothing bounds it.

        That is where the line of a system without waiting (N times one caller's rate) meets the limit.
        """
        return self.limit_rps / self.rate_rps


def fit_scalability(points: Sequence[tuple[float, float]]) -> Scalability:
    """
    Fit the law to (callers, requests a second) by least squares on relative deviations.

    N/X is linear in the unknowns, so the best fit with none of them negative is unique and needs no start value.

    Raises:
        TooFewError: fewer than three numbers of callers.
    """
    if len({callers for callers, _ in points}) < 3:
        raise TooFewError("three numbers of callers at least make a curve")
    callers, rps = (np.array(column, dtype=float) for column in zip(*points, strict=True))
    design = np.column_stack([np.ones_like(callers), callers - 1, callers * (callers - 1)])
    scale = rps / callers
    (seconds, waits, pairs), _ = nnls(design * scale[:, None], np.ones_like(callers))
    if seconds <= 0:
        # All of it looks like waiting: one server that is busy from the first caller on.
        seconds = float(callers[0] / rps[0])
    return Scalability(1 / float(seconds), float(waits / seconds), float(pairs / seconds))
