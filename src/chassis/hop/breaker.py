"""
A circuit breaker: refuse calls to a hop that keeps failing, and probe it until it answers again.

    closed --(most recent calls failed)--> open --(after open_s)--> half-open --(one probe succeeds)--> closed
                                            ^----------(it fails)------------'

The breaker does no I/O, and its clock is passed in. Source of the pattern: Nygard, Release It!, 2007.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

BreakerState = Literal["closed", "open", "half-open"]

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
        self._opened: float | None = None
        self._probing = False
        # How often the breaker has opened. Calls from before the last opening do not count.
        self._openings = 0
        self._window = clock()
        self._recent = self._previous = (0, 0)

    @property
    def state(self) -> BreakerState:
        """Return the current state."""
        if self._opened is None:
            return "closed"
        return "half-open" if self._clock() >= self._opened + self._limits.open_s else "open"

    def admit(self) -> int | None:
        """
        Return the ticket of a call, for `note` or `forget` when the call has ended; None if the call is refused.

        A half-open breaker admits one call at a time, as a probe.
        """
        state = self.state
        if state == "half-open" and not self._probing:
            self._probing = True
            return self._openings
        return self._openings if state == "closed" else None

    def note(self, ticket: int, *, success: bool) -> None:
        """Count an admitted call as a success or a failure."""
        if ticket != self._openings:
            return
        if self._opened is not None:
            self._probing = False
            if success:
                self._opened = None
                self._recent = self._previous = (0, 0)
            else:
                self._open()
            return
        self._start_window_if_due()
        calls, failures = self._recent
        self._recent = (calls + 1, failures + (not success))
        if not success and self._is_failing():
            self._open()

    def forget(self, ticket: int) -> None:
        """Do not count an admitted call, because it says nothing about the hop."""
        if ticket == self._openings:
            self._probing = False

    def _open(self) -> None:
        self._opened = self._clock()
        self._openings += 1

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
