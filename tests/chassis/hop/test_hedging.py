"""A slow request is sent again, and the first good answer wins."""

import asyncio

import httpx
import pytest

from chassis.hop.client import HopClient
from chassis.hop.retries import RetryBudget
from chassis.wire.problems import DependencyError
from tests.chassis.hop.scripted import Scripted, client, send
from tests.virtual_time import on_virtual_time

pytestmark = [on_virtual_time, pytest.mark.usefixtures("clock")]


async def warm_up(hop: HopClient) -> None:
    for _ in range(32):
        await send(hop)


async def test_a_slow_answer_is_hedged():
    """The client sends a second copy of a request that takes longer than usual, and the faster answer wins."""
    hold = asyncio.Event()

    async def slow(request: httpx.Request) -> httpx.Response:
        await hold.wait()
        return httpx.Response(500)

    transport = Scripted(*[200] * 32, slow, 200)
    hop = client(transport, hedge=True)
    await warm_up(hop)
    assert (await send(hop)).value == {"n": 34}
    assert hop.statistics.hedges == 1


async def test_a_hedge_that_fails_first_does_not_decide():
    """A failed hedge is ignored while the first request may still succeed; the call fails only when both fail."""
    hold = asyncio.Event()

    async def slow(request: httpx.Request) -> httpx.Response:
        await hold.wait()
        return httpx.Response(200, json="first")

    async def fail(request: httpx.Request) -> httpx.Response:
        asyncio.get_running_loop().call_later(0.01, hold.set)
        return httpx.Response(500)

    transport = Scripted(*[200] * 32, slow, fail)
    hop = client(transport, hedge=True)
    await warm_up(hop)
    assert (await send(hop)).value == "first"
    with pytest.raises(DependencyError):
        await send(hop)


async def test_an_answer_wins_over_a_simultaneous_failure():
    """When a request and its hedge end in the same turn of the loop, the successful answer is the result."""
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
        await warm_up(hop)
        assert (await send(hop)).value == "twin"


async def test_hedges_use_the_retry_budget(clock):
    """The client does not hedge a slow answer when the retry budget is empty."""

    async def slow(request: httpx.Request) -> httpx.Response:
        await clock.advance(0.02)
        return httpx.Response(200, json="slow")

    hop = client(Scripted(*[200] * 32, slow), hedge=True, budget=RetryBudget(share=0.0, reserve=0))
    await warm_up(hop)
    assert (await send(hop)).value == "slow"
    assert hop.statistics.hedges == 0
