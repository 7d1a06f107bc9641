"""
A client for one hop: the calls from one function to another, within the caller's time budget.

The client takes any httpx transport, so tests and users can plug in their own. It hands requests directly to the
transport, because httpx's client costs more CPU than the whole exchange (docs/adr/0004-hop-client.md).

The client retries connections that were refused, broke, or closed without an answer; 502; and 503 if its Retry-After
leaves time, or if the instance was starting or draining. A retry is safe because every call between the functions only
reads. The client never retries a 4xx or a timeout.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import httpx
import msgspec

from chassis.call import JSON, Call
from chassis.hop.breaker import Breaker
from chassis.hop.retries import RetryBudget, RetryPolicy, parse_retry_after
from chassis.receipt import HEADER, parse_receipt
from chassis.telemetry import definitions
from chassis.telemetry.instruments import Histogram, Instrument, Totals
from chassis.telemetry.tracing import Span
from chassis.wire.headers import REQUEST_ID, REQUEST_TIMEOUT_MS
from chassis.wire.http_connection import Answer
from chassis.wire.json_text import NOT_DECODED
from chassis.wire.problems import DeadlineExceededError, DependencyError, ServingError
from chassis.wire.transport import as_poster

T = TypeVar("T")

_RETRYABLE_STATUS = frozenset({502, 503})
_NOT_READY = b'"code":"not-ready"'
_BREAKER_VALUES = {"closed": 0, "half-open": 1, "probing": 1, "open": 2}
_SAMPLES, _LEAST_SAMPLES = 256, 32
# A call that waited less than this says nothing about the hop. For a slow hop the wait is longer, up to the second value.
_FAIR_S, _LONGEST_FAIR_S = 0.1, 0.25
# An impatient client waits this many times the usual latency, but never less than the seconds.
_PATIENCE, _LEAST_PATIENCE_S = 8, 0.5
# Before its first answer, and after this many seconds without one, it waits up to the second number of seconds: a
# function that scaled to zero needs its time to start.
_FORGET_S, _START_S = 60.0, 4.0

log = logging.getLogger("chassis")


class HopAnswer(msgspec.Struct, Generic[T], frozen=True):
    """
    An answer of a hop.

    Attributes:
        value: The decoded answer.
        spent_s: Duration of the call, measured by the caller.
        durations: Seconds by phase, from the hop's receipt.
        facts: The other entries of the receipt, such as `rev`.
    """

    value: T
    spent_s: float = 0.0
    durations: Mapping[str, float] = {}
    facts: Mapping[str, str] = {}


class Hop(Protocol):
    """The way to another function."""

    async def send(self, body: bytes, *, call: Call, within_s: float, decode: Callable[[bytes], T]) -> HopAnswer[T]:
        """
        Post *body* on behalf of *call*, taking at most *within_s*, and *decode* the answer.

        Raises:
            DeadlineExceededError: the hop did not answer in time.
            DependencyError: the hop did not answer, answered with an error, or answered something unreadable.
        """
        ...


class _Failure(Exception):  # noqa: N818 - the outcome of one attempt
    """
    One attempt failed.

    Attributes:
        error: The error that the call raises unless another attempt succeeds.
        retryable: Whether another attempt may succeed.
        retry_after_s: The hop's Retry-After: the earliest time of another attempt.
        ours: Whether the hop refused the request (4xx), which says nothing about the hop.
    """

    def __init__(
        self, error: ServingError, *, retryable: bool = False, retry_after_s: float | None = None, ours: bool = False
    ) -> None:
        super().__init__(str(error))
        self.error = error
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        self.ours = ours


@dataclass
class HopStatistics:
    """
    Totals since the process started.

    Attributes:
        answers: Calls that were answered.
        failures: Calls that failed or timed out.
        abandoned: Calls whose callers disconnected too early to tell how the call would end.
        refused: Calls that the open breaker refused.
        retries: Attempts after the first attempt of a call.
        hedges: Second requests of a call, sent while the first was still running.
    """

    answers: int = 0
    failures: int = 0
    abandoned: int = 0
    refused: int = 0
    retries: int = 0
    hedges: int = 0


class HopClient:
    """
    Calls one function.

    Args:
        name: The hop's name, for messages and metrics.
        url: The function's address.
        transport: Carries the requests. The client does not close it.
        token: Returns the bearer token of each call; None sends none.
        breaker: Refuses calls to a hop that fails.
        policy: Limits the attempts of one call.
        budget: Limits the retries over time.
        hedge: Send a second request after the observed 95th percentile, and take the first answer.
        impatient: Give up early on a hop that has recently answered much faster, however much time the caller has left.
            Use it where the caller can do without the answer.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        transport: httpx.AsyncBaseTransport,
        token: Callable[[], Awaitable[str | None]] | None = None,
        breaker: Breaker | None = None,
        policy: RetryPolicy | None = None,
        budget: RetryBudget | None = None,
        hedge: bool = False,
        impatient: bool = False,
    ) -> None:
        self._name = name
        self._url = httpx.URL(url)
        self._host = (b"host", self._url.netloc)
        self._poster = as_poster(transport)
        self._token = token
        self._policy = policy or RetryPolicy()
        self._budget = budget or RetryBudget()
        self._hedge = hedge
        self._impatient = impatient
        self._latencies: deque[float] = deque(maxlen=_SAMPLES)
        self._answered_at = float("-inf")
        self.breaker = breaker or Breaker()
        self.statistics = HopStatistics()
        self._durations = Histogram(definitions.HOP_DURATION)

    def instruments(self) -> list[Instrument]:
        """Return the client's metrics."""
        name, totals = self._name, self.statistics

        def outcomes() -> dict[tuple[str, ...], float]:
            return {
                (name, "ok"): totals.answers,
                (name, "failed"): totals.failures,
                (name, "abandoned"): totals.abandoned,
                (name, "refused"): totals.refused,
            }

        return [
            self._durations,
            Totals(definitions.HOP_CALLS, outcomes),
            Totals(definitions.HOP_RETRIES, lambda: {(name,): totals.retries}),
            Totals(definitions.HOP_HEDGES, lambda: {(name,): totals.hedges}),
            Totals(definitions.BREAKER, lambda: {(name,): _BREAKER_VALUES[self.breaker.state]}),
        ]

    async def send(self, body: bytes, *, call: Call, within_s: float, decode: Callable[[bytes], T]) -> HopAnswer[T]:
        """Post *body* on behalf of *call*; see `Hop`. An answer that *decode* refuses counts as a failed call."""
        began = time.monotonic()
        ends = began + self._patience_s(began, min(within_s, call.deadline.left_s()))
        ticket = self.breaker.admit()
        if ticket is None:
            self.statistics.refused += 1
            raise DependencyError(
                f"{self._name} keeps failing, so its calls are refused for a moment", retry_after_s=1.0
            )
        self._budget.earn()
        try:
            answer = await self._try(body, call, ends)
            value = self._read(answer, decode)
        except ServingError as error:
            self._fail(ticket, began, counts=self._is_fair(error, ends - began))
            raise
        except BaseException:
            # A caller that leaves after a fair wait counts as a timeout. The callers of a group leave when the time of the
            # call ends, just before the call itself times out.
            if time.monotonic() - began >= self._fair_s():
                self._fail(ticket, began, counts=True)
            else:
                self.statistics.abandoned += 1
                self.breaker.forget(ticket)
            raise
        self.statistics.answers += 1
        self.breaker.note(ticket, success=True)
        spent_s = time.monotonic() - began
        self._latencies.append(spent_s)
        self._answered_at = began + spent_s
        self._durations.observe(spent_s, self._name)
        return HopAnswer(value, spent_s, *parse_receipt(answer.header(HEADER)))

    def _fail(self, ticket: int, began: float, *, counts: bool) -> None:
        self.statistics.failures += 1
        self._durations.observe(time.monotonic() - began, self._name)
        if counts:
            self.breaker.note(ticket, success=False)
        else:
            self.breaker.forget(ticket)

    def _is_fair(self, error: ServingError, given_s: float) -> bool:
        """Tell whether *error* counts against the hop: not if the hop refused the request or had too little time."""
        if isinstance(error, DeadlineExceededError):
            return given_s >= self._fair_s()
        return not (isinstance(error.__cause__, _Failure) and error.__cause__.ours)

    def _fair_s(self) -> float:
        """Return the time in which the hop should answer: twice its usual latency, within bounds."""
        return min(max(_FAIR_S, 2 * self._usual_s()), _LONGEST_FAIR_S) if self._latencies else _FAIR_S

    def _patience_s(self, now: float, left_s: float) -> float:
        """Return how long to wait for the hop, at most *left_s*."""
        # The first comparison spares the percentile, 10 us, where the budget is short anyway.
        if not self._impatient or left_s <= _LEAST_PATIENCE_S:
            return left_s
        if now - self._answered_at > _FORGET_S:
            return min(left_s, _START_S)
        return min(left_s, max(_LEAST_PATIENCE_S, _PATIENCE * self._usual_s()))

    def _usual_s(self) -> float:
        """Return the 95th percentile of the latest latencies."""
        return sorted(self._latencies)[int(len(self._latencies) * 0.95)]

    def _read(self, answer: Answer, decode: Callable[[bytes], T]) -> T:
        try:
            return decode(answer.body)
        except NOT_DECODED as error:
            raise DependencyError(f"{self._name} answered something unreadable", retry_after_s=1.0) from error

    async def _try(self, body: bytes, call: Call, ends: float) -> Answer:
        attempt = 0
        while True:
            attempt += 1
            left_s = ends - time.monotonic()
            if left_s <= 0:
                raise DeadlineExceededError(f"{self._name} did not answer in time")
            try:
                return await self._exchange(body, call, left_s)
            except _Failure as failure:
                pause_s = self._pause_s(failure, attempt, ends - time.monotonic())
                if pause_s is None:
                    raise failure.error from failure
                self.statistics.retries += 1
                await asyncio.sleep(pause_s)

    def _pause_s(self, failure: _Failure, attempt: int, left_s: float) -> float | None:
        if not failure.retryable:
            return None
        pause_s = self._policy.pause_s(attempt, left_s=left_s, retry_after_s=failure.retry_after_s)
        return pause_s if pause_s is not None and self._budget.spend() else None

    async def _exchange(self, body: bytes, call: Call, left_s: float) -> Answer:
        hedge_after_s = self._hedge_after_s()
        if hedge_after_s is None or hedge_after_s >= left_s:
            return await self._attempt(body, call, left_s)
        first = asyncio.ensure_future(self._attempt(body, call, left_s))
        racers: set[asyncio.Future[Answer]] = {first}
        try:
            await asyncio.wait(racers, timeout=hedge_after_s)
            if not first.done() and self._budget.spend():
                self.statistics.hedges += 1
                racers.add(asyncio.ensure_future(self._attempt(body, call, left_s - hedge_after_s)))
            return await _first_success(racers)
        finally:
            for racer in racers:
                racer.cancel()

    def _hedge_after_s(self) -> float | None:
        """Return how long to wait before the second request; None if there is to be none."""
        if not self._hedge or len(self._latencies) < _LEAST_SAMPLES:
            return None
        return self._usual_s()

    async def _attempt(self, body: bytes, call: Call, left_s: float) -> Answer:
        span = call.span.child(self._name)
        status = 0
        try:
            headers = await self._headers(call, span, left_s)
            answer = await self._poster.post(self._url, headers, body, timeout_s=left_s)
            status = answer.status
        except httpx.TimeoutException as error:
            raise _Failure(DeadlineExceededError(f"{self._name} did not answer in time")) from error
        except httpx.TransportError as error:
            unreachable = DependencyError(f"{self._name} cannot be reached", retry_after_s=1.0)
            raise _Failure(unreachable, retryable=True) from error
        finally:
            span.end(status=status)
        if status == httpx.codes.OK:
            return answer
        raise self._verdict(answer)

    def _verdict(self, answer: Answer) -> _Failure:
        if answer.status == httpx.codes.GATEWAY_TIMEOUT:
            return _Failure(DeadlineExceededError(f"{self._name} did not answer in time"))
        error = DependencyError(f"{self._name} answered {answer.status}", retry_after_s=1.0)
        if 400 <= answer.status < 500:
            log.warning("hop_refused_request", extra={"hop": self._name, "status": answer.status})
            return _Failure(error, ours=True)
        # An instance that starts speaks only for itself, and the gateway may send the next attempt to another one.
        after_s = None if _NOT_READY in answer.body else parse_retry_after(answer.header(b"retry-after"))
        return _Failure(error, retryable=answer.status in _RETRYABLE_STATUS, retry_after_s=after_s)

    async def _headers(self, call: Call, span: Span, left_s: float) -> list[tuple[bytes, bytes]]:
        headers = [
            self._host,
            (b"content-type", JSON),
            (REQUEST_ID, call.request_id.encode("latin-1")),
            (REQUEST_TIMEOUT_MS, b"%d" % max(1, int(left_s * 1000))),
        ]
        headers += span.context()
        token = await self._token() if self._token else None
        if token is not None:
            headers.append((b"authorization", b"Bearer " + token.encode("latin-1")))
        return headers


async def _first_success(racers: set["asyncio.Future[Answer]"]) -> Answer:
    """
    Return the first answer.

    Raises:
        Exception: the error of one racer, if all of them failed.
    """
    pending = racers
    while True:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        # Both racers may end in the same turn of the event loop, and either may have failed.
        winners = [racer for racer in done if racer.exception() is None]
        if winners or not pending:
            return (winners or list(done))[0].result()
