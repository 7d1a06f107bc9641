"""
A circuit breaker: stop calling what does not answer, and find out soon when it does again.

    closed --(most recent calls failed)--> open --(after open_s)--> half-open --(one probe succeeds)--> closed
                                            ^----------(it fails)------------'

Synchronous and free of I/O; the clock is passed in. Source of the pattern: Nygard, Release It!, 2007.
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
    When to open and for how long.

    Attributes:
        failure_share: Of the calls of the last one to two seconds, how many must fail. Well above one half, so that
            one dead instance of two, which retries get round, does not close the way to the other.
        least_calls: Fewer calls say nothing.
        open_s: How long nothing is tried.
    """

    failure_share: float = 0.8
    least_calls: int = 5
    open_s: float = 0.3


class Breaker:
    """Counts outcomes and says whether a call may be made."""

    def __init__(self, limits: BreakerLimits | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits or BreakerLimits()
        self._clock = clock
        self._opened: float | None = None
        self._probing = False
        # How often it has opened. Calls from before its last opening are no news.
        self._era = 0
        self._window = clock()
        self._recent = self._previous = (0, 0)

    @property
    def state(self) -> BreakerState:
        """Return the state as of now."""
        if self._opened is None:
            return "closed"
        return "half-open" if self._clock() >= self._opened + self._limits.open_s else "open"

    def admit(self) -> int | None:
        """
        Return the ticket of a call, to be handed to `note` or `forget` when it has ended; None where it may not be made.

        While half-open one call at a time is let through, as a probe.
        """
        state = self.state
        if state == "half-open" and not self._probing:
            self._probing = True
            return self._era
        return self._era if state == "closed" else None

    def note(self, ticket: int, *, success: bool) -> None:
        """Note how an admitted call ended."""
        if ticket != self._era:
            return
        if self._opened is not None:
            self._probing = False
            if success:
                self._opened = None
                self._recent = self._previous = (0, 0)
            else:
                self._open()
            return
        self._turn()
        calls, failures = self._recent
        self._recent = (calls + 1, failures + (not success))
        if not success and self._is_failing():
            self._open()

    def forget(self, ticket: int) -> None:
        """Note that an admitted call says nothing."""
        if ticket == self._era:
            self._probing = False

    def _open(self) -> None:
        self._opened = self._clock()
        self._era += 1

    def _is_failing(self) -> bool:
        calls = self._recent[0] + self._previous[0]
        failures = self._recent[1] + self._previous[1]
        return calls >= self._limits.least_calls and failures >= self._limits.failure_share * calls

    def _turn(self) -> None:
        elapsed = self._clock() - self._window
        if elapsed >= _WINDOW_S:
            self._previous = self._recent if elapsed < 2 * _WINDOW_S else (0, 0)
            self._recent = (0, 0)
            self._window = self._clock()
