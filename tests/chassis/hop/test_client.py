import asyncio
import random
from collections.abc import Sequence

import httpx
import pytest

from chassis.batching.async_batcher import AsyncBatcher
from chassis.batching.queue import BatchLimits
from chassis.hop.breaker import Breaker, BreakerLimits
from chassis.hop.retries import RetryBudget, RetryPolicy
from chassis.telemetry import definitions
from chassis.telemetry.instruments import Instrument
from chassis.wire.problems import DeadlineExceededError, DependencyError, ServingError
from tests.chassis.hop.scripted import Scripted, client, make_call, send
from tests.virtual_time import on_virtual_time

pytestmark = [on_virtual_time, pytest.mark.usefixtures("clock")]


async def test_the_request_carries_the_callers_context():
    """
    The hop gets the request id, the remaining budget, the trace context and the service token, but no other header.
    """
    transport = Scripted(200)
    parent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = [(b"traceparent", parent), (b"cookie", b"secret"), (b"authorization", b"Bearer users")]

    async def token() -> str:
        return "service"

    await send(client(transport, token=token), make_call(headers), within_s=0.4)
    sent = transport.requests[0].headers
    assert sent["x-request-id"] == "request-1"
    assert 350 <= int(sent["x-request-timeout-ms"]) <= 400
    assert sent["traceparent"] == parent.decode()
    assert sent["authorization"] == "Bearer service"
    assert "cookie" not in sent


@pytest.mark.parametrize("proxied", [False, True])
async def test_the_answer_carries_the_hops_receipt(proxied):
    """
    The client returns the value, the time spent and the hop's receipt, even after a Server-Timing header of a proxy.
    """
    timing = [("server-timing", 'model;dur=2, total;dur=5, rev;desc="hop-1"')]
    if proxied:
        timing.insert(0, ("Server-Timing", "cache"))
    transport = Scripted(httpx.Response(200, json=[1], headers=timing))
    answer = await send(client(transport))
    assert answer.value == [1]
    assert answer.durations == {"model": 0.002, "total": 0.005}
    assert answer.facts == {"rev": "hop-1"}
    assert answer.spent_s > 0


@pytest.mark.parametrize(
    "failure",
    [httpx.ConnectError(""), httpx.ReadError(""), httpx.RemoteProtocolError(""), 502, 503],
    ids=repr,
)
async def test_transient_failures_are_retried(failure):
    """The client retries refused and broken connections, 502 and 503, and the caller sees only the success."""
    transport = Scripted(failure, failure, 200)
    hop = client(transport)
    assert (await send(hop)).value == {"n": 3}
    assert hop.statistics.retries == 2
    assert hop.breaker.state == "closed"


@pytest.mark.parametrize("status", [404, 422, 429, 500, 501])
async def test_permanent_failures_are_not_retried(status):
    """Any other error status fails immediately as a failed dependency."""
    transport = Scripted(status, 200)
    with pytest.raises(DependencyError, match=str(status)):
        await send(client(transport))
    assert len(transport.requests) == 1


@pytest.mark.parametrize("late", [httpx.ReadTimeout(""), httpx.ConnectTimeout(""), httpx.PoolTimeout(""), 504])
async def test_timeouts_are_not_retried(late):
    """A timeout at the client or at the hop raises DeadlineExceededError without a retry, because the time is spent."""
    transport = Scripted(late, 200)
    with pytest.raises(DeadlineExceededError):
        await send(client(transport))
    assert len(transport.requests) == 1


async def test_retry_after_is_honoured_when_it_fits():
    """The client does not retry a 503 whose Retry-After is longer than the time left."""
    busy = httpx.Response(503, headers={"retry-after": "1"})
    transport = Scripted(busy, 200)
    with pytest.raises(DependencyError):
        await send(client(transport))
    assert len(transport.requests) == 1
    transport = Scripted(httpx.Response(503, headers={"retry-after": "0"}), 200)
    assert (await send(client(transport))).value == {"n": 2}


async def test_an_instance_that_starts_does_not_delay_the_next_attempt():
    """The Retry-After of a process that starts says nothing about the other instances, so the next attempt is immediate."""
    starting = httpx.Response(503, json={"code": "not-ready"}, headers={"retry-after": "9"})
    assert (await send(client(Scripted(starting, starting, 200)))).value == {"n": 3}


async def test_an_exhausted_retry_budget_ends_retries():
    """The client does not retry when the retry budget is empty."""
    transport = Scripted(httpx.ConnectError(""))
    hop = client(transport, budget=RetryBudget(share=0.0, reserve=1))
    for _ in range(2):
        with pytest.raises(DependencyError):
            await send(hop)
    assert len(transport.requests) == 3


class OneOfThreeDead(httpx.AsyncBaseTransport):
    """A gateway that sends a random third of the requests to a dead instance."""

    def __init__(self) -> None:
        self.requests = 0
        self._draw = random.Random(4).random

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        return httpx.Response(502 if self._draw() < 1 / 3 else 200, json=1)


async def test_retries_hide_one_dead_instance_of_three():
    """The retry budget saved in healthy times covers the failures until the platform removes the dead instance."""
    budget, transport = RetryBudget(reserve=10), OneOfThreeDead()
    for _ in range(8000):
        budget.earn()
    hop = client(transport, budget=budget, policy=RetryPolicy(base_s=0.0))
    outcomes = await asyncio.gather(*(send(hop) for _ in range(1500)), return_exceptions=True)
    assert sum(isinstance(outcome, DependencyError) for outcome in outcomes) < 1500 * 0.01
    assert transport.requests <= 1500 + 9500 * 0.1 + 10
    for _ in range(3):
        await asyncio.gather(*(send(hop) for _ in range(1500)), return_exceptions=True)
    assert transport.requests <= 6000 + 14_000 * 0.1 + 10


async def test_each_call_earns_a_share_of_a_retry():
    """A call that needs no retry leaves its share to later calls."""
    transport = Scripted(200, httpx.ConnectError(""))
    hop = client(transport, budget=RetryBudget(share=0.5, reserve=0))
    await send(hop)
    with pytest.raises(DependencyError):
        await send(hop)
    assert len(transport.requests) == 3


async def test_an_expired_call_is_not_sent():
    """The client sends nothing when the deadline has already passed."""
    transport = Scripted(200)
    with pytest.raises(DeadlineExceededError):
        await send(client(transport), make_call(seconds=-1.0))
    assert transport.requests == []


@pytest.mark.parametrize(
    "failing",
    [500, httpx.ReadTimeout(""), httpx.Response(200, content=b"garbage"), httpx.Response(200, content=b"[" * 10_000)],
    ids=["500", "timeout", "garbage", "nested"],
)
async def test_a_failing_hop_is_not_called(failing):
    """After repeated failures, including unreadable answers, calls fail immediately without reaching the hop."""
    transport = Scripted(failing)
    hop = client(transport, breaker=Breaker(BreakerLimits(least_calls=3, open_s=60)))
    for _ in range(3):
        with pytest.raises(ServingError):
            await send(hop)
    before = len(transport.requests)
    with pytest.raises(DependencyError, match="refused for a moment"):
        await send(hop)
    assert len(transport.requests) == before
    assert hop.statistics.refused == 1


async def test_timeouts_of_grouped_calls_open_the_breaker():
    """A group call that ends at its deadline counts as a failure of the hop, although its callers leave too."""

    async def hang(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    hop = client(Scripted(hang), breaker=Breaker(BreakerLimits(least_calls=4, open_s=60)))

    async def run(queries: Sequence[int], within_s: float) -> list[object]:
        return [(await send(hop, within_s=within_s)).value] * len(queries)

    grouper: AsyncBatcher[int, object] = AsyncBatcher(run, limits=BatchLimits(4, 0.0, 100, slots=4))
    for callers in (1, 3, 1):
        asked = (grouper.ask(1, within_s=0.12) for _ in range(callers))
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [DeadlineExceededError] * callers
        await asyncio.sleep(0)
    assert (hop.breaker.state, hop.statistics.failures, hop.statistics.abandoned) == ("open", 4, 0)


async def test_a_short_timeout_does_not_open_the_breaker():
    """A caller that gives the hop too little time gets no answer, and its timeouts do not count against the hop."""

    async def hang(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("")

    hop = client(Scripted(hang), breaker=Breaker(BreakerLimits(least_calls=1)))
    for _ in range(10):
        with pytest.raises(DeadlineExceededError):
            await send(hop, within_s=0.05)
    assert (hop.breaker.state, hop.statistics.failures) == ("closed", 10)


@pytest.mark.parametrize(
    ("impatient", "answers", "idle_s", "waits_s"),
    [
        (True, [0.01] * 40, 0, 0.5),
        (True, [0.01], 0, 0.5),
        (True, [0.2] * 40, 0, 1.6),
        (True, [2.0] * 40, 0, 10.0),
        (True, [0.01] * 40, 61, 4.0),
        (True, [], 0, 4.0),
        (False, [0.01] * 40, 0, 10.0),
    ],
    ids=["fast", "fast-once", "slow", "very-slow", "idle", "new", "patient"],
)
async def test_an_impatient_client_waits_some_times_the_usual_latency(clock, impatient, answers, idle_s, waits_s):
    """A long budget is not spent on a hop that usually answers fast; a hop that may be starting gets 4 s."""

    async def answer(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(answers[0])
        return httpx.Response(200, json=1)

    async def hang(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(float(request.headers["x-request-timeout-ms"]) / 1000)
        raise httpx.ReadTimeout("")

    hop = client(Scripted(*[answer] * len(answers), hang), impatient=impatient)
    for _ in answers:
        await send(hop, make_call(seconds=10), within_s=10)
    await clock.advance(idle_s)
    began = clock.now()
    with pytest.raises(DeadlineExceededError):
        await send(hop, make_call(seconds=10), within_s=10)
    assert clock.now() - began == pytest.approx(waits_s, rel=0.05)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 431, 451, 499])
async def test_a_refusal_never_opens_the_breaker(status, caplog):
    """A 4xx is about the request, which is our mistake: the client logs it, and the next call reaches the hop."""
    hop = client(Scripted(status), breaker=Breaker(BreakerLimits(least_calls=1)))
    for _ in range(10):
        with pytest.raises(DependencyError, match=str(status)):
            await send(hop)
    assert (hop.breaker.state, hop.statistics.failures) == ("closed", 10)
    assert [record.getMessage() for record in caplog.records] == ["hop_refused_request"] * 10


def calls_by_outcome(instrument: Instrument) -> dict[str, float]:
    return {sample.labels["outcome"]: sample.value for sample in instrument.collect().samples}


async def test_calls_are_counted_when_they_end(clock):
    """A call in flight is in none of the counters, so no counter ever decreases."""
    hold = asyncio.Event()

    async def later(request: httpx.Request) -> httpx.Response:
        await hold.wait()
        return httpx.Response(500)

    hop = client(Scripted(200, later))
    calls = next(each for each in hop.instruments() if each.definition is definitions.HOP_CALLS)
    await send(hop)
    sending = asyncio.create_task(send(hop))
    await clock.advance(0.01)
    before = calls_by_outcome(calls)
    hold.set()
    with pytest.raises(DependencyError):
        await sending
    assert before == {"ok": 1, "failed": 0, "abandoned": 0, "refused": 0}
    assert calls_by_outcome(calls) == {**before, "failed": 1}


async def test_a_cancelled_call_does_not_open_the_breaker(clock):
    """A call that its caller cancels does not count as a failure of the hop."""

    async def hang(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    hop = client(Scripted(hang), breaker=Breaker(BreakerLimits(least_calls=1)))
    sending = asyncio.create_task(send(hop))
    await clock.advance(0.01)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert (hop.breaker.state, hop.statistics.abandoned, hop.statistics.failures) == ("closed", 1, 0)
