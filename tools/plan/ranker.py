"""
A queueing model of an instance that ranks in batches: one slot, and all waiting requests form the next batch.

The time of a batch depends on its size, and no closed formula gives the latency. So the model simulates the queue. All
simulations use the same random arrivals: results differ by the rate only, and a plan is reproducible.
"""

import math
import random
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import numpy as np

from tools.plan.curves import BatchCost

# Highest planned utilisation. The rest absorbs growing load until additional instances are ready.
HEADROOM = 0.8
_REQUESTS = 20_000
# The rate is exact to 0.01 %, far below the noise of the simulation.
_HALVINGS = 14


@dataclass(frozen=True)
class QueueFigures:
    """
    Latency and batch sizes of an instance at a given rate.

    Attributes:
        mean_s: Mean time of waiting and ranking.
        p99_s: 99th percentile of that time.
        batch: Mean batch size.
        large_batch: 99th percentile of the batch size.
    """

    mean_s: float
    p99_s: float
    batch: float
    large_batch: int


@dataclass(frozen=True)
class SimulatedRanker:
    """An instance with its batch cost and maximum batch size."""

    cost: BatchCost
    max_batch_size: int

    @property
    def ceiling_rps(self) -> float:
        """Requests per second if every batch is full."""
        return self.cost.ceiling_rps(self.max_batch_size)

    def at(self, rps: float) -> QueueFigures:
        """Simulate independent callers that send *rps* in total. From the ceiling on, latencies are infinite."""
        if rps >= self.ceiling_rps:
            return QueueFigures(math.inf, math.inf, float(self.max_batch_size), self.max_batch_size)
        arrivals = [moment / rps for moment in _unit_arrivals()]
        if self.max_batch_size == 1:
            latencies, sizes = _serve_singly(arrivals, self.cost.time_s(1)), [1]
        else:
            latencies, sizes = self._serve_in_batches(arrivals)
        latencies.sort()
        sizes.sort()
        return QueueFigures(
            mean_s=sum(latencies) / len(latencies),
            p99_s=latencies[int(0.99 * len(latencies))],
            batch=sum(sizes) / len(sizes),
            large_batch=sizes[int(0.99 * len(sizes))],
        )

    def _serve_in_batches(self, arrivals: list[float]) -> tuple[list[float], list[int]]:
        """Return the latency of each request and the size of each batch."""
        latencies: list[float] = []
        sizes: list[int] = []
        free = 0.0
        first = 0
        while first < len(arrivals):
            began = max(free, arrivals[first])
            last = min(bisect_right(arrivals, began, lo=first), first + self.max_batch_size)
            free = began + self.cost.time_s(last - first)
            latencies += [free - arrival for arrival in arrivals[first:last]]
            sizes.append(last - first)
            first = last
        return latencies, sizes

    def rate_within(self, p99_s: float) -> float:
        """Return the highest rate that keeps *p99_s* and the headroom; 0 if even a lone request is slower."""
        low, high = 0.0, HEADROOM * self.ceiling_rps
        if self.cost.time_s(1) > p99_s:
            return low
        if self.at(high).p99_s <= p99_s:
            return high
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self.at(middle).p99_s <= p99_s else (low, middle)
        return low


def _serve_singly(arrivals: list[float], time_s: float) -> list[float]:
    """
    Return the latency of each request if all requests take *time_s*, one after the other.

    A request waits for the latest end of a run of requests without a gap. The start of such a run is the request that
    arrived latest, measured against the time that all requests before it take.
    """
    arrived = np.array(arrivals)
    before_s = time_s * np.arange(len(arrived))
    waits = np.maximum.accumulate(arrived - before_s) + before_s - arrived
    latencies: list[float] = (waits + time_s).tolist()
    return latencies


@lru_cache(maxsize=1)
def _unit_arrivals() -> tuple[float, ...]:
    rng = random.Random(0)  # noqa: S311 - a simulation, not a secret
    return tuple(accumulate(rng.expovariate(1.0) for _ in range(_REQUESTS)))
