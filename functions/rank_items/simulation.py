"""
Simulate a slower model than the demo's, to show how the pipeline scales.

The setting `SIMULATED_LATENCY_S` switches the delay on. The answers do not change.
"""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

Q = TypeVar("Q")
R = TypeVar("R")


def slow_batches(rank: Callable[[Sequence[Q]], list[R]], seconds: float) -> Callable[[Sequence[Q]], list[R]]:
    """Return *rank* with a delay of *seconds* in each batch; *rank* itself if *seconds* is 0."""
    if not seconds:
        return rank

    def rank_slowly(queries: Sequence[Q]) -> list[R]:
        time.sleep(seconds)
        return rank(queries)

    return rank_slowly
