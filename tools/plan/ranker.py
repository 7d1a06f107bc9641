"""
An instance that ranks in batches, as a queue: one slot, and everything that waits goes into the next batch.

Textbooks have no formula for its latency where the time of a batch depends on its size, so the queue is run on a clock
of its own. Chance is always drawn alike: two rates differ by the rate alone, and a plan is the same every time.
"""

import math
import random
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from tools.plan.fitting import BatchCost

# Utilisation beyond this leaves nothing for the seconds until further instances are ready.
HEADROOM = 0.8
_REQUESTS = 20_000
_HALVINGS = 24


@dataclass(frozen=True)
class QueueFigures:
    """
    An instance at some rate.

    Attributes:
        mean_s: Mean of waiting and ranking.
        p99_s: Their 99th percentile.
        batch: Mean size of a batch.
        large_batch: The size one batch in a hundred exceeds.
    """

    mean_s: float
    p99_s: float
    batch: float
    large_batch: int


@dataclass(frozen=True)
class Ranker:
    """One instance with its batch cost and the size its batches may reach."""

    cost: BatchCost
    max_batch_size: int

    @property
    def ceiling_rps(self) -> float:
        """Requests a second when every batch is full."""
        return self.cost.ceiling_rps(self.max_batch_size)

    def at(self, rps: float) -> QueueFigures:
        """Return what independent callers who send *rps* see; at and beyond the ceiling the queue has no end."""
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
        """Return the highest rate that keeps *p99_s* and the headroom; 0 where not even a lone request is so fast."""
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
    rng = random.Random(0)  # noqa: S311 - no secret is made of it
    return tuple(accumulate(rng.expovariate(1.0) for _ in range(_REQUESTS)))
