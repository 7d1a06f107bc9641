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
        latencies: list[float] = []
        sizes: list[int] = []
        arrivals = [moment / rps for moment in _unit_arrivals()]
        free = 0.0
        first = 0
        while first < len(arrivals):
            began = max(free, arrivals[first])
            last = min(bisect_right(arrivals, began, lo=first), first + self.max_batch_size)
            free = began + self.cost.time_s(last - first)
            latencies += [free - arrival for arrival in arrivals[first:last]]
            sizes.append(last - first)
            first = last
        latencies.sort()
        sizes.sort()
        return QueueFigures(
            mean_s=sum(latencies) / len(latencies),
            p99_s=latencies[int(0.99 * len(latencies))],
            batch=sum(sizes) / len(sizes),
            large_batch=sizes[int(0.99 * len(sizes))],
        )

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


@lru_cache(maxsize=1)
def _unit_arrivals() -> tuple[float, ...]:
    rng = random.Random(0)  # noqa: S311 - a simulation, not a secret
    return tuple(accumulate(rng.expovariate(1.0) for _ in range(_REQUESTS)))
