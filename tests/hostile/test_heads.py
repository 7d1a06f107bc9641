"""Heads that fit at the public door and not at the next one: their sender must not degrade the answers of others."""

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec
import pytest

from chassis.wire.headers import RawHeaders
from chassis.wire.http_connection import Answer
from chassis.wire.transport import HttptoolsTransport
from tests.demo import DemoState
from tests.e2e.verbs import verb
from tests.hostile.conftest import Figure
from tests.running import Pipeline

pytestmark = pytest.mark.may_block

# Requests, and how many of them are in flight. Callers that wait for answers let no queue grow on a busy machine, where
# a late answer would be a degraded one.
HOSTILE, INNOCENT = (200, 8), (75, 2)
TIMEOUT_S = 10.0
BUDGET = (b"x-request-timeout-ms", b"8000")

# recommend accepts heads of up to 64 KiB, and Envoy accepts 100 header lines.
NEARLY_TOO_LONG = [(b"baggage", b"a=" + b"1" * 65_400)]
MANY_LINES = [(b"baggage", b"a%d=1" % number) for number in range(97)]


class Caller:
    """A caller that posts requests to one address."""

    def __init__(self, url: str, transport: HttptoolsTransport) -> None:
        self._url = httpx.URL(url)
        self._transport = transport

    async def post(self, headers: RawHeaders) -> Answer:
        body = b'{"user_id":"user_42"}'
        return await self._transport.post(
            self._url, [(b"host", self._url.netloc), BUDGET, *headers], body, timeout_s=TIMEOUT_S
        )

    async def post_many(self, headers: RawHeaders, times: int, *, at_once: int) -> list[Answer]:
        """Post *times* requests, of which *at_once* are in flight."""
        free = asyncio.Semaphore(at_once)

        async def post() -> Answer:
            async with free:
                return await self.post(headers)

        return await asyncio.gather(*(post() for _ in range(times)))


def summarise(answers: list[Answer]) -> Counter[str]:
    """Count the answers by status and by the hops that failed."""
    documents = [msgspec.json.decode(answer.body) for answer in answers]
    return Counter(
        "+".join([str(answer.status), *document.get("degraded", ())])
        for answer, document in zip(answers, documents, strict=True)
    )


async def count_degraded(url: str, head: RawHeaders, report: Callable[[float], None]) -> None:
    """
    Send requests with *head* and requests without it at the same time; none of the answers may be degraded.

    The number of other callers' answers that are not complete goes to *report*.
    """
    transport = HttptoolsTransport(max_connections=200)
    caller = Caller(url, transport)
    hostile, innocent = await asyncio.gather(
        caller.post_many(head, HOSTILE[0], at_once=HOSTILE[1]),
        caller.post_many([], INNOCENT[0], at_once=INNOCENT[1]),
    )
    await transport.aclose()
    print(f"answers to hostile requests: {dict(summarise(hostile))}, to others: {dict(summarise(innocent))}")
    report(len(innocent) - summarise(innocent)["200"])
    assert summarise(innocent) == {"200": INNOCENT[0]}
    assert summarise(hostile) == {"200": HOSTILE[0]}


@pytest.mark.parametrize("head", [NEARLY_TOO_LONG, MANY_LINES], ids=["nearly-too-long", "many-lines"])
async def test_a_head_that_fits_outside_fits_inside(pipeline: Pipeline, head: RawHeaders, figure: Figure) -> None:
    """Many requests with a head at the limit are answered in full, and so is every other request."""
    name = f"innocents degraded of {INNOCENT[0]}, beside heads of {len(head)} headers at the limit"
    await count_degraded(pipeline.recommend.url, head, lambda number: figure(name, number, "answers"))


@pytest.mark.scenario
@pytest.mark.alone
@pytest.mark.timeout(300)
async def test_a_head_that_fits_outside_fits_behind_envoy(
    demo_state: DemoState, tmp_path: Path, free_port: int, figure: Figure
) -> None:
    """Envoy accepts 100 header lines: a head that passes the public port also passes the hop."""
    demo_state.copy_to(tmp_path)
    options = ("--state-dir", str(tmp_path))
    await asyncio.to_thread(verb, "up", "--detach", "--port", str(free_port), *options)
    try:
        name = f"innocents degraded of {INNOCENT[0]}, behind Envoy, beside heads of 97 headers"
        await count_degraded(
            f"http://127.0.0.1:{free_port}", MANY_LINES, lambda number: figure(name, number, "answers")
        )
    finally:
        await asyncio.to_thread(verb, "down", *options)
