"""
One hop: a call from one function to another, inside the caller's time budget.

httpx is the interface and its transport API the seam: tests and users plug in their own. Requests go straight to the
transport, and to ours as plain values, because httpx's layers cost more than the whole exchange
(docs/adr/0004-hop-client.md).

What may be tried again: connections that were refused, broke, or closed without an answer, 502, and 503 when its
Retry-After leaves time. Every call between the functions only reads, so a second one is safe. Never: 4xx, timeouts.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import httpx
import msgspec

from recsys.contracts.problems import DeadlineExceededError, DependencyError, ServingError
from recsys.serving.breaker import Breaker
from recsys.serving.call import JSON, Call
from recsys.serving.receipt import HEADER, parse_receipt
from recsys.serving.retries import RetryBudget, RetryPolicy
from recsys.serving.service import REQUEST_ID_HEADER, TIMEOUT_HEADER
from recsys.serving.transport import Answer, as_poster
from recsys.telemetry import definitions
from recsys.telemetry.instruments import Histogram, Instrument, Totals
from recsys.telemetry.tracing import Span

T = TypeVar("T")

_RETRYABLE_STATUS = frozenset({502, 503})
_BREAKER_STATES = ("closed", "half-open", "open")
_SAMPLES, _LEAST_SAMPLES = 256, 32


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
    """An attempt failed with *error*; `retryable` says whether another one may help, not before `retry_after_s`."""

    def __init__(self, error: ServingError, *, retryable: bool = False, retry_after_s: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.retryable = retryable
        self.retry_after_s = retry_after_s


@dataclass
class HopStatistics:
    """Totals since the start."""

    calls: int = 0
    failures: int = 0
    retries: int = 0
    hedges: int = 0
    refused: int = 0


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
            failed, refused = totals.failures, totals.refused
            return {(name, "ok"): totals.calls - failed, (name, "failed"): failed, (name, "refused"): refused}

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
        if not self.breaker.admit():
            self.statistics.refused += 1
            raise DependencyError(f"{self._name} has been failing and is left alone for a moment", retry_after_s=1.0)
        self.statistics.calls += 1
        self._budget.earn()
        try:
            answer = await self._try(body, call, ends)
            value = self._read(answer, decode)
        except ServingError:
            self.statistics.failures += 1
            self.breaker.note(success=False)
            self._durations.observe(time.monotonic() - began, self._name)
            raise
        except BaseException:
            self.breaker.forget()
            raise
        self.breaker.note(success=True)
        spent_s = time.monotonic() - began
        self._latencies.append(spent_s)
        self._durations.observe(spent_s, self._name)
        return HopAnswer(value, spent_s, *parse_receipt(answer.header(HEADER)))

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
        return sorted(self._latencies)[int(len(self._latencies) * 0.95)]

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
        return _Failure(error, retryable=answer.status in _RETRYABLE_STATUS, retry_after_s=_retry_after_s(answer))

    async def _headers(self, call: Call, span: Span, left_s: float) -> list[tuple[bytes, bytes]]:
        headers = [
            self._host,
            (b"content-type", JSON),
            (REQUEST_ID_HEADER, call.request_id.encode("latin-1")),
            (TIMEOUT_HEADER, b"%d" % max(1, int(left_s * 1000))),
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
        for racer in done:
            if racer.exception() is None or not pending:
                return racer.result()


def _retry_after_s(answer: Answer) -> float | None:
    """Return the seconds of Retry-After; its date form is left alone, it cannot fit into a request's budget."""
    value = answer.header(b"retry-after")
    return float(value) if value.isdecimal() else None
