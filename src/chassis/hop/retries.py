"""
When a failed call is worth another try.

Two rules keep retries from making an outage worse: they end with the caller's deadline, and over time there is at
most one for ten requests. Synchronous and free of I/O.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass


class RetryBudget:
    """
    Earns a fraction of a retry with each request and spends whole ones.

    Args:
        share: Retries per request over time.
        reserve: Retries that may be made before any were earned.
        most: Retries that may be saved up. An instance that dies takes along what it had in flight, all at once, and is
            asked for seconds more where nobody watches it: one of three dead for 10 s at 150 requests a second costs
            750 retries.

    Source: Finagle's RetryBudget (a token bucket fed by requests).
    """

    def __init__(self, *, share: float = 0.1, reserve: float = 10.0, most: float = 1000.0) -> None:
        self._share = share
        self._most = most
        self._tokens = reserve

    def earn(self) -> None:
        """Note a request."""
        self._tokens = min(self._most, self._tokens + self._share)

    def spend(self) -> bool:
        """Take a retry, if there is one."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


@dataclass(frozen=True)
class RetryPolicy:
    """
    How often and how fast.

    Attributes:
        attempts: Calls in all, the first one included. Where one instance of three is dead, one call in 3**5 finds no other.
        base_s: Mean pause before the first retry; each further one doubles it.
    """

    attempts: int = 5
    base_s: float = 0.005

    def pause_s(
        self,
        attempt: int,
        *,
        left_s: float,
        retry_after_s: float | None = None,
        draw: Callable[[], float] = random.random,
    ) -> float | None:
        """
        Return how long to wait after failed attempt number *attempt* (from 1), or None to give up.

        The pause is drawn evenly from zero to twice its mean, so that callers who failed together do not come back
        together; what the server asked for with Retry-After is the least.
        """
        if attempt >= self.attempts:
            return None
        pause_s = max(retry_after_s or 0.0, 2 * draw() * self.base_s * 2 ** (attempt - 1))
        return pause_s if pause_s < left_s else None
