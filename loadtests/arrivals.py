"""
Times at which the requests of an open loop are due, independent of earlier answers.

In a closed loop, each user sends the next request after the last answer. A slow server then receives fewer requests,
and most of its slowness is never measured (coordinated omission). In the open loop, send times are fixed in advance
and latency counts from them.

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
        phases: The phases of the shape; a phase's level scales the rate.
        rate: Requests a second at level 1.
        duration_s: Length of the run.
        pattern: `poisson` for independent callers (exponential gaps), `constant` for even spacing.
        rng: Draws the gaps of `poisson`.

    The function draws arrivals at unit rate and maps them through the inverse of the cumulative rate. Each phase's
    arrivals are then Poisson at the rate of that phase (time rescaling; Daley & Vere-Jones, An Introduction to the
    Theory of Point Processes, 7.4).
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
