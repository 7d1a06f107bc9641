"""The attempts of a call, all of which share its time budget."""

import time
from dataclasses import dataclass, replace
from typing import Any

import httpx

from chassis.hop.retries import RetryBudget, RetryPolicy, parse_retry_after
from recsys.client.errors import NoAnswerError

# Time beyond the deadline in which the pipeline's own answer to a missed deadline may arrive.
GRACE_S = 0.5
_RETRYABLE_STATUS = frozenset({502, 503})
_NOT_READY = b'"code":"not-ready"'
# Kubernetes takes a crashed pod out of service within a second or two, so the pauses add up to about a second.
_RETRIES = RetryPolicy(base_s=0.025, most_s=0.1)


@dataclass(frozen=True)
class Exchange:
    """A request, and how long its answer may take."""

    url: str
    headers: dict[str, str]
    body: bytes
    timeout_s: float

    def keywords(self) -> dict[str, Any]:
        """Return the arguments of httpx's `post`."""
        return {"headers": self.headers, "content": self.body, "timeout": self.timeout_s + GRACE_S}

    def within(self, left_s: float) -> "Exchange":
        """Return the same request with *left_s* for its answer."""
        return replace(self, headers=self.headers | budget_header(left_s), timeout_s=left_s)


class Attempts:
    """The attempts of one call."""

    def __init__(self, exchange: Exchange, budget: RetryBudget) -> None:
        self._exchange = exchange
        self._budget = budget
        self._ends = time.monotonic() + exchange.timeout_s
        self._made = 0
        budget.earn()

    def next(self) -> Exchange:
        """Return the request of the next attempt."""
        self._made += 1
        return self._exchange.within(self._ends - time.monotonic()) if self._made > 1 else self._exchange

    def pause_s(self, outcome: httpx.Response | httpx.TransportError) -> float | None:
        """Return how long to wait before the next attempt; None if *outcome* is final."""
        wanted_s = None
        if isinstance(outcome, httpx.Response):
            if outcome.status_code not in _RETRYABLE_STATUS:
                return None
            # An instance that starts speaks only for itself, and the gateway may send the next attempt to another one.
            is_starting = _NOT_READY in outcome.content
            wanted_s = None if is_starting else parse_retry_after(outcome.headers.get("retry-after", ""))
        elif isinstance(outcome, httpx.TimeoutException):
            return None
        left_s = self._ends - time.monotonic()
        pause_s = _RETRIES.pause_s(self._made, left_s=left_s, retry_after_s=wanted_s)
        return pause_s if pause_s is not None and self._budget.spend() else None


def budget_header(timeout_s: float) -> dict[str, str]:
    """Return the header that tells the pipeline how long the answer may take."""
    return {"x-request-timeout-ms": f"{timeout_s * 1000:.0f}"}


def last_answer(exchange: Exchange, outcome: httpx.Response | httpx.TransportError) -> httpx.Response:
    """Return the answer of the last attempt, or raise its error."""
    if isinstance(outcome, httpx.Response):
        return outcome
    if isinstance(outcome, httpx.TimeoutException):
        raise NoAnswerError(f"{exchange.url}: no complete answer within {exchange.timeout_s:g} s") from outcome
    raise NoAnswerError(
        f"{exchange.url}: {str(outcome) or type(outcome).__name__}; check that the pipeline runs"
    ) from outcome
