"""
A circuit breaker: refuse calls to a hop that keeps failing, and probe it until it answers again.

    closed --failing--> open --waited--> half-open --admitted--> probing --succeeded--> closed

A probe that fails opens the breaker again. A probe that says nothing about the hop makes room for another one.

The breaker does no I/O, and its clock is passed in. Source of the pattern: Nygard, Release It!, 2007.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from chassis.transitions import advance

BreakerState = Literal["closed", "open", "half-open", "probing"]
BreakerEvent = Literal["failing", "waited", "admitted", "succeeded", "failed", "forgotten"]

TRANSITIONS: Final[Mapping[tuple[BreakerState, BreakerEvent], BreakerState]] = {
    ("closed", "failing"): "open",
    ("open", "waited"): "half-open",
    ("half-open", "admitted"): "probing",
    ("probing", "succeeded"): "closed",
    ("probing", "failed"): "open",
    ("probing", "forgotten"): "half-open",
}

_WINDOW_S = 1.0


@dataclass(frozen=True)
class BreakerLimits:
    """
    When the breaker opens, and for how long.

    Attributes:
        failure_share: The share of the calls of the last one to two seconds that must fail. It is well above one half,
            because with one dead instance of two the retries reach the other one.
        least_calls: The breaker stays closed after fewer calls.
        open_s: How long the breaker refuses all calls.
    """

    failure_share: float = 0.8
    least_calls: int = 5
    open_s: float = 0.3


class Breaker:
    """Counts how calls end, and decides whether a call may be made."""

    def __init__(self, limits: BreakerLimits | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits or BreakerLimits()
        self._clock = clock
        self._state: BreakerState = "closed"
        self._opened_at = 0.0
        # How often the breaker has opened. Calls from before the last opening do not count.
        self._openings = 0
        self._window = clock()
        self._recent = self._previous = (0, 0)

    @property
    def state(self) -> BreakerState:
        """Return the current state. An open breaker becomes half-open when `open_s` seconds have passed."""
        if self._state == "open" and self._clock() >= self._opened_at + self._limits.open_s:
            self._note_event("waited")
        return self._state

    def admit(self) -> int | None:
        """
        Return the ticket of a call, for one `note` or `forget` when the call has ended; None if the call is refused.

        A half-open breaker admits one call as a probe, and refuses others until the probe has ended.
        """
        state = self.state
        if state == "half-open":
            self._note_event("admitted")
        return self._openings if state in {"closed", "half-open"} else None

    def note(self, ticket: int, *, success: bool) -> None:
        """Count an admitted call as a success or a failure."""
        if ticket != self._openings:
            return
        if self._state == "closed":
            self._count(success=success)
        else:
            self._note_event("succeeded" if success else "failed")

    def forget(self, ticket: int) -> None:
        """Do not count an admitted call, because it says nothing about the hop."""
        if ticket == self._openings and self._state != "closed":
            self._note_event("forgotten")

    def _note_event(self, event: BreakerEvent) -> None:
        self._state = advance(TRANSITIONS, self._state, event)
        if self._state == "open":
            self._opened_at = self._clock()
            self._openings += 1
        elif self._state == "closed":
            self._recent = self._previous = (0, 0)

    def _count(self, *, success: bool) -> None:
        self._start_window_if_due()
        calls, failures = self._recent
        self._recent = (calls + 1, failures + (not success))
        if not success and self._is_failing():
            self._note_event("failing")

    def _is_failing(self) -> bool:
        calls = self._recent[0] + self._previous[0]
        failures = self._recent[1] + self._previous[1]
        return calls >= self._limits.least_calls and failures >= self._limits.failure_share * calls

    def _start_window_if_due(self) -> None:
        elapsed = self._clock() - self._window
        if elapsed >= _WINDOW_S:
            self._previous = self._recent if elapsed < 2 * _WINDOW_S else (0, 0)
            self._recent = (0, 0)
            self._window = self._clock()
