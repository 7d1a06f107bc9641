"""
How much load when: a shape is a row of phases, each a share of the run at a share of the full load.

The closed loop takes the level as a share of its users, the open loop as a share of its arrival rate.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """A *share* of the duration (0..1) at a *level* of the full load (0..1)."""

    share: float
    level: float


@dataclass(frozen=True)
class Shape:
    """Phases whose shares add up to 1, and how long the whole takes when nobody says."""

    phases: Sequence[Phase]
    default_s: float


SHAPES = {
    "steady": Shape((Phase(1.0, 1.0),), default_s=60),
    # Five plateaus: where the latency bends is where the capacity ends.
    "step": Shape(tuple(Phase(0.2, level) for level in (0.2, 0.4, 0.6, 0.8, 1.0)), default_s=100),
    # A quiet start to compare with, ten times as much at once, and long enough after it to see it recover.
    "spike": Shape((Phase(0.25, 0.1), Phase(0.45, 1.0), Phase(0.3, 0.1)), default_s=60),
    # A short climb, then the same for long: what leaks or fills up shows as drift.
    "soak": Shape((Phase(0.02, 0.25), Phase(0.02, 0.5), Phase(0.02, 0.75), Phase(0.94, 1.0)), default_s=1800),
}


def level_at(phases: Sequence[Phase], elapsed_s: float, *, duration_s: float) -> float | None:
    """Return the level at *elapsed_s* of a run of *duration_s*; None when it is over."""
    if elapsed_s >= duration_s:
        return None
    end_s = 0.0
    for phase in phases:
        end_s += phase.share * duration_s
        if elapsed_s < end_s:
            return phase.level
    # Shares that add up to a little less than 1 in floating point leave the last moment to the last phase.
    return phases[-1].level


def users_at(phases: Sequence[Phase], elapsed_s: float, *, duration_s: float, users: int) -> int | None:
    """Return how many of *users* there should be at *elapsed_s*, at least one; None when the run is over."""
    level = level_at(phases, elapsed_s, duration_s=duration_s)
    return None if level is None else max(1, round(users * level))
