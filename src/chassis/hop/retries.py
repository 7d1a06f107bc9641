"""
Decides whether to retry a failed call.

Two rules keep retries from making an outage worse: no retry begins after the caller's deadline, and over time there is
at most one retry for ten requests. This module does no I/O.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass


class RetryBudget:
    """
    A budget of retries: each request adds a fraction of a retry, each retry takes a whole one.

    Args:
        share: Retries added by each request.
        reserve: Retries in the new budget. An instance may die just after the caller has started.
        most: The most retries the budget can hold. A dead instance may receive requests for seconds until the platform
            removes it, and each of them needs a retry (docs/adr/0004-hop-client.md).

    Source: Finagle's RetryBudget (a token bucket fed by requests).
    """

    def __init__(self, *, share: float = 0.1, reserve: float = 500.0, most: float = 1000.0) -> None:
        self._share = share
        self._most = most
        self._tokens = reserve

    def earn(self) -> None:
        """Add the share of one request."""
        self._tokens = min(self._most, self._tokens + self._share)

    def spend(self) -> bool:
        """Take one retry if the budget holds one, and tell whether it does."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def parse_retry_after(value: str) -> float | None:
    """Return the seconds of a Retry-After; None for a date, which is never within a request's budget, or without any."""
    return float(value) if value.isdecimal() else None


@dataclass(frozen=True)
class RetryPolicy:
    """
    How many attempts a call has, and how long the pauses between them are.

    Attributes:
        attempts: All attempts of a call, the first included. A dead instance of two got 63 % of the attempts on a cluster,
            because its quick failures come back as further attempts.
        at_once: Retries without a pause. A gateway that takes instances in turn sends them to another one.
        base_s: Mean pause before the next retry. Each further retry doubles it.
        most_s: The longest mean pause.
    """

    attempts: int = 16
    at_once: int = 2
    base_s: float = 0.005
    most_s: float = 0.02

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

        The pause is random, between zero and twice its mean, so that callers that failed together do not retry
        together. It is never shorter than *retry_after_s*.
        """
        if attempt >= self.attempts:
            return None
        mean_s = min(self.most_s, self.base_s * 2 ** (attempt - 1 - self.at_once)) if attempt > self.at_once else 0.0
        pause_s = max(retry_after_s or 0.0, 2 * draw() * mean_s)
        return pause_s if pause_s < left_s else None
