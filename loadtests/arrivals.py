"""
When the requests of an open loop are due, whatever becomes of those before them.

A closed loop sends the next request when the last one is answered, so a slow server is asked less often and most of
its slowness is never measured (coordinated omission). Here the moments are fixed beforehand, and latency counts from them.
Source: Tene, "How NOT to Measure Latency" (2013).
"""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from loadtests.phases import Phase

Pattern = Literal["poisson", "constant"]


def due_times(
    phases: Sequence[Phase], *, rate: float, duration_s: float, pattern: Pattern, rng: random.Random
) -> Iterator[float]:
    """
    Yield the seconds since the start at which requests are due, ascending, all below *duration_s*.

    Args:
        phases: The shape; its level scales the rate.
        rate: Requests a second at level 1.
        duration_s: Length of the run.
        pattern: `poisson`: independent callers, exponential gaps; `constant`: evenly spaced.
        rng: Draws the gaps of `poisson`.

    Arrivals of unit rate are stretched by the inverse of the cumulative rate, so a phase's arrivals are Poisson at its
    own rate (time rescaling; Daley & Vere-Jones, An Introduction to the Theory of Point Processes, 7.4).
    """
    gap: Callable[[], float] = (lambda: rng.expovariate(1.0)) if pattern == "poisson" else (lambda: 1.0)
    began_s = began_count = 0.0
    due_count = gap()
    for phase in phases:
        phase_rate, phase_s = rate * phase.level, phase.share * duration_s
        end_count = began_count + phase_rate * phase_s
        while due_count < end_count:
            yield began_s + (due_count - began_count) / phase_rate
            due_count += gap()
        began_s, began_count = began_s + phase_s, end_count
