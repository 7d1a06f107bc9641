"""
One hop: a call from one function to another, inside the caller's time budget.

httpx is the interface and its transport API the seam: tests and users plug in their own. Requests go straight to the
transport, and to ours as plain values, because httpx's layers cost more than the whole exchange
(docs/adr/0004-hop-client.md).

What may be tried again: connections that were refused, broke, or closed without an answer, 502, and 503 when its
Retry-After leaves time. Every call between the functions only reads, so a second one is safe. Never: 4xx, timeouts.
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import httpx
import msgspec

from chassis.call import JSON, Call
from chassis.hop.breaker import Breaker
from chassis.hop.retries import RetryBudget, RetryPolicy
from chassis.receipt import HEADER, parse_receipt
from chassis.telemetry import definitions
from chassis.telemetry.instruments import Histogram, Instrument, Totals
from chassis.telemetry.tracing import Span
from chassis.wire.headers import REQUEST_ID, REQUEST_TIMEOUT_MS
from chassis.wire.problems import DeadlineExceededError, DependencyError, ServingError
from chassis.wire.transport import Answer, as_poster

T = TypeVar("T")

_RETRYABLE_STATUS = frozenset({502, 503})
_BREAKER_STATES = ("closed", "half-open", "open")
_SAMPLES, _LEAST_SAMPLES = 256, 32
# Who waits shorter for an answer learns nothing about the hop; for one that is slow anyway it may be longer, up to a bound.
_FAIR_S, _LONGEST_FAIR_S = 0.1, 0.25

log = logging.getLogger("chassis")


class HopAnswer(msgspec.Struct, Generic[T], frozen=True):
    """
    What a hop answered.

    Attributes:
        value: The answer, decoded.
        spent_s: How long the call took, seen from here.
        durations: Seconds by phase, from the hop's own receipt.
        facts: The receipt's other entries, `rev` among them.
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
            DeadlineExceededError: no answer in time.
            DependencyError: no answer, or one that is no success or cannot be read.
        """
        ...


class _Failure(Exception):  # noqa: N818 - a verdict on one attempt
    """
    An attempt failed.

    Attributes:
        error: What the call fails with.
        retryable: Another attempt may help, not before `retry_after_s`.
        ours: The hop found fault with the request.
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
    Totals since the start.

    Attributes:
        answers: Calls that brought an answer.
        failures: Calls that brought none, or not in time.
        abandoned: Calls whose callers left before that could be told.
        refused: Calls not made because the breaker was open.
        retries: Attempts after the first one of a call.
        hedges: Second requests of a call.
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
        name: Of the hop, for messages.
        url: Where the function answers.
        transport: Carries the requests; closed by whoever made it.
        token: Sent as bearer token, asked for at each call; None for none.
        breaker: Stops calls to a hop that fails.
        policy: How often to try again.
        budget: How often over time.
        hedge: After the observed 95th percentile, send a second request and take the first answer.
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
    ) -> None:
        self._name = name
        self._url = httpx.URL(url)
        self._host = (b"host", self._url.netloc)
        self._poster = as_poster(transport)
        self._token = token
        self._policy = policy or RetryPolicy()
        self._budget = budget or RetryBudget()
        self._hedge = hedge
        self._latencies: deque[float] = deque(maxlen=_SAMPLES)
        self.breaker = breaker or Breaker()
        self.statistics = HopStatistics()
        self._durations = Histogram(definitions.HOP_DURATION)

    def instruments(self) -> list[Instrument]:
        """Return what there is to scrape."""
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
            Totals(definitions.BREAKER, lambda: {(name,): _BREAKER_STATES.index(self.breaker.state)}),
        ]

    async def send(self, body: bytes, *, call: Call, within_s: float, decode: Callable[[bytes], T]) -> HopAnswer[T]:
        """Post *body* on behalf of *call*; see `Hop`. An answer that *decode* refuses counts as a failed call."""
        began = time.monotonic()
        ends = began + min(within_s, call.deadline.left_s())
        ticket = self.breaker.admit()
        if ticket is None:
            self.statistics.refused += 1
            raise DependencyError(f"{self._name} has been failing and is left alone for a moment", retry_after_s=1.0)
        self._budget.earn()
        try:
            answer = await self._try(body, call, ends)
            value = self._read(answer, decode)
        except ServingError as error:
            self._fail(ticket, began, says_something=self._is_fair(error, ends - began))
            raise
        except BaseException:
            # Who leaves after a fair time says of the hop what a timeout says. So do the callers of a group, whose time ends
            # with the call's own.
            if time.monotonic() - began >= self._fair_s():
                self._fail(ticket, began, says_something=True)
            else:
                self.statistics.abandoned += 1
                self.breaker.forget(ticket)
            raise
        self.statistics.answers += 1
        self.breaker.note(ticket, success=True)
        spent_s = time.monotonic() - began
        self._latencies.append(spent_s)
        self._durations.observe(spent_s, self._name)
        return HopAnswer(value, spent_s, *parse_receipt(answer.header(HEADER)))

    def _fail(self, ticket: int, began: float, *, says_something: bool) -> None:
        self.statistics.failures += 1
        self._durations.observe(time.monotonic() - began, self._name)
        if says_something:
            self.breaker.note(ticket, success=False)
        else:
            self.breaker.forget(ticket)

    def _is_fair(self, error: ServingError, given_s: float) -> bool:
        """Tell whether *error* says something about the hop: not where our request was at fault, or had no time to speak of."""
        if isinstance(error, DeadlineExceededError):
            return given_s >= self._fair_s()
        return not (isinstance(error.__cause__, _Failure) and error.__cause__.ours)

    def _fair_s(self) -> float:
        """Return the time in which the hop should have answered: twice what it usually takes, within bounds."""
        return min(max(_FAIR_S, 2 * self._usual_s()), _LONGEST_FAIR_S) if self._latencies else _FAIR_S

    def _usual_s(self) -> float:
        """Return the 95th percentile of the latest answers' latencies."""
        return sorted(self._latencies)[int(len(self._latencies) * 0.95)]

    def _read(self, answer: Answer, decode: Callable[[bytes], T]) -> T:
        try:
            return decode(answer.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
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
        pause_s = self._policy.pause_s(attempt, left_s=left_s, retry_after_s=failure.retry_after_s, draw=random.random)
        return pause_s if pause_s is not None and self._budget.spend() else None

    async def _exchange(self, body: bytes, call: Call, left_s: float) -> Answer:
        patience_s = self._patience_s()
        if patience_s is None or patience_s >= left_s:
            return await self._attempt(body, call, left_s)
        first = asyncio.ensure_future(self._attempt(body, call, left_s))
        racers: set[asyncio.Future[Answer]] = {first}
        try:
            await asyncio.wait(racers, timeout=patience_s)
            if not first.done() and self._budget.spend():
                self.statistics.hedges += 1
                racers.add(asyncio.ensure_future(self._attempt(body, call, left_s - patience_s)))
            return await _first_success(racers)
        finally:
            for racer in racers:
                racer.cancel()

    def _patience_s(self) -> float | None:
        """Return after how long to hedge; None for never."""
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
        return _Failure(error, retryable=answer.status in _RETRYABLE_STATUS, retry_after_s=_retry_after_s(answer))

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
    """Return the first answer; raise only when the last racer has failed."""
    pending = racers
    while True:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        # Both may have ended in the same turn of the loop, and either may have failed.
        winners = [racer for racer in done if racer.exception() is None]
        if winners or not pending:
            return (winners or list(done))[0].result()


def _retry_after_s(answer: Answer) -> float | None:
    """Return the seconds of Retry-After; its date form is left alone, it cannot fit into a request's budget."""
    value = answer.header(b"retry-after")
    return float(value) if value.isdecimal() else None
