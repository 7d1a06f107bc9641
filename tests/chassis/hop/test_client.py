import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Sequence

import httpx
import pytest

from chassis.batching.async_batcher import AsyncBatcher
from chassis.batching.queue import BatchLimits
from chassis.call import Call, Deadline
from chassis.hop.breaker import Breaker, BreakerLimits
from chassis.hop.client import HopAnswer, HopClient
from chassis.hop.retries import RetryBudget, RetryPolicy
from chassis.receipt import Receipt
from chassis.telemetry import definitions
from chassis.telemetry.instruments import Instrument
from chassis.telemetry.tracing import PassOn
from chassis.wire.headers import RawHeaders
from chassis.wire.problems import DeadlineExceededError, DependencyError, ServingError

Answer = Callable[[httpx.Request], Awaitable[httpx.Response]]


class Scripted(httpx.AsyncBaseTransport):
    """Answers with what it was given, in turn, the last for ever after: a status, an error, or a function."""

    def __init__(self, *script: object) -> None:
        self._script = list(script)
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        step = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        await asyncio.sleep(0)
        if isinstance(step, Exception):
            raise step
        if isinstance(step, int):
            return httpx.Response(step, json={"n": len(self.requests)})
        if isinstance(step, httpx.Response):
            return step
        assert callable(step)
        response = await step(request)
        assert isinstance(response, httpx.Response)
        return response


def client(transport: httpx.AsyncBaseTransport, **more: object) -> HopClient:
    more.setdefault("policy", RetryPolicy(base_s=0.0001))
    return HopClient("hop", "http://hop.test/", transport=transport, **more)  # type: ignore[arg-type]


def make_call(headers: RawHeaders = (), seconds: float = 1.0) -> Call:
    return Call(b"", headers, "request-1", Receipt(0.0), Deadline.after(seconds), PassOn(headers))


async def send(hop: HopClient, call: Call | None = None, within_s: float = 1.0) -> HopAnswer[object]:
    return await hop.send(b"{}", call=call or make_call(), within_s=within_s, decode=decode)


def decode(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError as error:
        raise UnicodeDecodeError("utf-8", body, 0, 1, "garbage") from error


async def test_the_request_carries_what_belongs_to_the_caller():
    """Request id, what is left of the budget, trace context and the service token go along; nothing else does."""
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
async def test_the_answer_brings_the_hops_receipt(proxied):
    """Value, time and the hop's own receipt come back, also where a proxy has put its own before it."""
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
async def test_what_may_pass_is_tried_again(failure):
    """Refused and broken connections, 502 and 503 get another attempt; the caller sees none of it."""
    transport = Scripted(failure, failure, 200)
    hop = client(transport)
    assert (await send(hop)).value == {"n": 3}
    assert hop.statistics.retries == 2
    assert hop.breaker.state == "closed"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 429, 500, 501])
async def test_what_will_not_pass_is_not_tried_again(status):
    """Other statuses fail at once as a failed dependency."""
    transport = Scripted(status, 200)
    with pytest.raises(DependencyError, match=str(status)):
        await send(client(transport))
    assert len(transport.requests) == 1


@pytest.mark.parametrize("late", [httpx.ReadTimeout(""), httpx.ConnectTimeout(""), httpx.PoolTimeout(""), 504])
async def test_time_that_is_spent_is_a_spent_deadline(late):
    """Timeouts, here or at the hop, are 504 and never tried again: the time is gone."""
    transport = Scripted(late, 200)
    with pytest.raises(DeadlineExceededError):
        await send(client(transport))
    assert len(transport.requests) == 1


async def test_retry_after_is_honoured_when_it_fits():
    """A 503 that asks for more time than is left is final."""
    busy = httpx.Response(503, headers={"retry-after": "1"})
    transport = Scripted(busy, 200)
    with pytest.raises(DependencyError):
        await send(client(transport))
    assert len(transport.requests) == 1
    transport = Scripted(httpx.Response(503, headers={"retry-after": "0"}), 200)
    assert (await send(client(transport))).value == {"n": 2}


async def test_an_exhausted_retry_budget_ends_retries():
    """With nothing left to spend a failure is final."""
    transport = Scripted(httpx.ConnectError(""))
    hop = client(transport, budget=RetryBudget(share=0.0, reserve=1))
    for _ in range(2):
        with pytest.raises(DependencyError):
            await send(hop)
    assert len(transport.requests) == 3


class OneOfThreeDead(httpx.AsyncBaseTransport):
    """A gateway that sends every third request, drawn, to an instance that is not there."""

    def __init__(self) -> None:
        self.dead = False
        self.requests = 0
        self._draw = random.Random(4).random

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        return httpx.Response(502 if self.dead and self._draw() < 1 / 3 else 200, json=1)


async def test_one_dead_instance_of_three_is_hardly_noticed():
    """What was saved up while all was well pays for the seconds until somebody sees that an instance is gone."""
    transport = OneOfThreeDead()
    hop = client(transport, policy=RetryPolicy(base_s=0.0))
    for _ in range(8000):
        await send(hop)
    transport.dead = True
    outcomes = await asyncio.gather(*(send(hop) for _ in range(1500)), return_exceptions=True)
    assert sum(isinstance(outcome, DependencyError) for outcome in outcomes) < 1500 * 0.01
    assert transport.requests < 9500 * 1.1 + 10
    for _ in range(3):
        await asyncio.gather(*(send(hop) for _ in range(1500)), return_exceptions=True)
    assert transport.requests < 14_000 * 1.1 + 10


async def test_no_budget_no_attempt():
    """Expired work is not started."""
    transport = Scripted(200)
    with pytest.raises(DeadlineExceededError):
        await send(client(transport), make_call(seconds=-1.0))
    assert transport.requests == []


@pytest.mark.parametrize("failing", [500, httpx.ReadTimeout(""), httpx.Response(200, content=b"garbage")], ids=repr)
async def test_a_hop_that_keeps_failing_is_left_alone(failing):
    """After some failures, unreadable answers among them, calls fail at once without reaching the hop."""
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


async def test_a_hop_that_hangs_is_left_alone_by_groups_too():
    """Callers of a group leave at their deadline, with the hop's own: that is no answer in time, not a lack of interest."""

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


async def test_a_caller_in_a_hurry_says_nothing_of_the_hop():
    """Who gives a hop no time to speak of gets no answer, and takes nobody else's away."""

    async def hang(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("")

    hop = client(Scripted(hang), breaker=Breaker(BreakerLimits(least_calls=1)))
    for _ in range(10):
        with pytest.raises(DeadlineExceededError):
            await send(hop, within_s=0.05)
    assert (hop.breaker.state, hop.statistics.failures) == ("closed", 10)


@pytest.mark.parametrize("status", [400, 413, 415, 422])
async def test_a_request_that_is_refused_says_nothing_of_the_hop(status, caplog):
    """What the hop finds fault with is of our making: it is logged, and others go on being sent."""
    hop = client(Scripted(status), breaker=Breaker(BreakerLimits(least_calls=1)))
    with pytest.raises(DependencyError):
        await send(hop)
    assert (hop.breaker.state, hop.statistics.failures) == ("closed", 1)
    assert [record.getMessage() for record in caplog.records] == ["hop_refused_request"]


def exposed(instrument: Instrument) -> dict[str, float]:
    return {sample.labels["outcome"]: sample.value for sample in instrument.collect().samples}


async def test_outcomes_are_counted_when_they_are_known():
    """Counters never fall: a call in flight is in none of them."""
    hold = asyncio.Event()

    async def later(request: httpx.Request) -> httpx.Response:
        await hold.wait()
        return httpx.Response(500)

    hop = client(Scripted(200, later))
    calls = next(each for each in hop.instruments() if each.definition is definitions.HOP_CALLS)
    await send(hop)
    sending = asyncio.create_task(send(hop))
    await asyncio.sleep(0.01)
    before = exposed(calls)
    hold.set()
    with pytest.raises(DependencyError):
        await sending
    assert before == {"ok": 1, "failed": 0, "abandoned": 0, "refused": 0}
    assert exposed(calls) == {**before, "failed": 1}


async def test_a_cancelled_call_says_nothing_of_the_hop():
    """A caller that leaves is no failure of the hop."""

    async def hang(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    hop = client(Scripted(hang), breaker=Breaker(BreakerLimits(least_calls=1)))
    sending = asyncio.create_task(send(hop))
    await asyncio.sleep(0.01)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert (hop.breaker.state, hop.statistics.abandoned, hop.statistics.failures) == ("closed", 1, 0)


async def _warm(hop: HopClient) -> None:
    for _ in range(32):
        await send(hop)


async def test_a_slow_answer_is_hedged():
    """Once the usual latency is known, a request that takes longer gets a twin, and the faster answer wins."""
    hold = asyncio.Event()

    async def slow(request: httpx.Request) -> httpx.Response:
        await hold.wait()
        return httpx.Response(500)

    transport = Scripted(*[200] * 32, slow, 200)
    hop = client(transport, hedge=True)
    await _warm(hop)
    assert (await send(hop)).value == {"n": 34}
    assert hop.statistics.hedges == 1


async def test_a_hedge_that_fails_first_does_not_decide():
    """The twin's failure is forgotten while the first may still answer; when both fail the call does."""
    hold = asyncio.Event()

    async def slow(request: httpx.Request) -> httpx.Response:
        await hold.wait()
        return httpx.Response(200, json="first")

    async def fail(request: httpx.Request) -> httpx.Response:
        asyncio.get_running_loop().call_later(0.01, hold.set)
        return httpx.Response(500)

    transport = Scripted(*[200] * 32, slow, fail)
    hop = client(transport, hedge=True)
    await _warm(hop)
    assert (await send(hop)).value == "first"
    with pytest.raises(DependencyError):
        await send(hop)


async def test_of_two_that_end_together_the_answer_counts():
    """The request and its twin end in one turn of the loop, one with an answer: that is the call's."""
    for _ in range(40):
        hold = asyncio.Event()

        async def slow(request: httpx.Request, hold: asyncio.Event = hold) -> httpx.Response:
            await hold.wait()
            return httpx.Response(500)

        async def twin(request: httpx.Request, hold: asyncio.Event = hold) -> httpx.Response:
            hold.set()
            await asyncio.sleep(0)
            return httpx.Response(200, json="twin")

        hop = client(Scripted(*[200] * 32, slow, twin), hedge=True)
        await _warm(hop)
        assert (await send(hop)).value == "twin"


async def test_hedges_come_out_of_the_retry_budget():
    """Without a retry to spend a slow answer is waited for."""

    async def slow(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.02)
        return httpx.Response(200, json="slow")

    hop = client(Scripted(*[200] * 32, slow), hedge=True, budget=RetryBudget(share=0.0, reserve=0))
    await _warm(hop)
    assert (await send(hop)).value == "slow"
    assert hop.statistics.hedges == 0
