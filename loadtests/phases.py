"""
Shapes of load over time. A shape is a sequence of phases.

Each phase lasts a share of the run and applies a share of the full load. In the closed loop the full load is a number
of users, in the open loop a request rate.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """A part of a run: *share* of its duration (0..1) at *level* of the full load (0..1)."""

    share: float
    level: float


@dataclass(frozen=True)
class Shape:
    """Phases whose shares add up to 1, and the default duration of a run."""

    phases: Sequence[Phase]
    default_s: float


SHAPES = {
    "steady": Shape((Phase(1.0, 1.0),), default_s=60),
    # Five plateaus: latency bends at the capacity.
    "step": Shape(tuple(Phase(0.2, level) for level in (0.2, 0.4, 0.6, 0.8, 1.0)), default_s=100),
    # A quiet start for comparison, a jump to ten times the load, and enough time to see the recovery.
    "spike": Shape((Phase(0.25, 0.1), Phase(0.45, 1.0), Phase(0.3, 0.1)), default_s=60),
    # A short ramp, then constant load: leaks show as drift.
    "soak": Shape((Phase(0.02, 0.25), Phase(0.02, 0.5), Phase(0.02, 0.75), Phase(0.94, 1.0)), default_s=1800),
}


def level_at(phases: Sequence[Phase], elapsed_s: float, *, duration_s: float) -> float | None:
    """Return the level at *elapsed_s* of a run of *duration_s*; None after its end."""
    if elapsed_s >= duration_s:
        return None
    end_s = 0.0
    for phase in phases:
        end_s += phase.share * duration_s
        if elapsed_s < end_s:
            return phase.level
    # In floating point the shares can add up to slightly less than 1; the last phase covers the rest.
    return phases[-1].level


def users_at(phases: Sequence[Phase], elapsed_s: float, *, duration_s: float, users: int) -> int | None:
    """Return the number of active users at *elapsed_s*, between one and *users*; None after the end of the run."""
    level = level_at(phases, elapsed_s, duration_s=duration_s)
    return None if level is None else max(1, round(users * level))
