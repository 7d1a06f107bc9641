"""Limits of the hop client: refusals count as the caller's fault, and no answer fills the memory."""

import asyncio

import httpx
import pytest

from chassis.call import Call, Deadline
from chassis.hop.breaker import Breaker, BreakerLimits
from chassis.hop.client import HopClient
from chassis.receipt import Receipt
from chassis.wire.problems import DependencyError
from chassis.wire.transport import HttptoolsTransport
from tests.waiting import LIMIT_S

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 431, 451, 499])
async def test_a_refusal_never_opens_the_breaker(status):
    """A 4xx is about the request: however many there are, the next call reaches the hop."""
    asked = 0

    async def refuse(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        return httpx.Response(status)

    hop = HopClient(
        "hop",
        "http://hop.test/",
        transport=httpx.MockTransport(refuse),
        breaker=Breaker(BreakerLimits(least_calls=1)),
    )
    call = Call(b"", (), "id", Receipt(0.0), Deadline.after(LIMIT_S))
    for _ in range(10):
        with pytest.raises(DependencyError, match=str(status)):
            await hop.send(b"{}", call=call, within_s=LIMIT_S, decode=bytes)
    assert (asked, hop.breaker.state) == (10, "closed")


@pytest.mark.parametrize(
    "flood",
    [
        HEAD % 1_000_000 + b"x" * 1_000_000,
        b"HTTP/1.1 200 OK\r\nx: " + b"x" * 1_000_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 40_000,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 200_000,
    ],
    ids=["body", "head", "interim", "chunks"],
)
async def test_an_endless_answer_is_cut_off(flood):
    """An answer that exceeds the limit fails, and its connection is closed."""
    closed = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            while True:
                writer.write(flood)
                await writer.drain()
        except ConnectionError:
            closed.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport = HttptoolsTransport(max_answer_bytes=100_000)
    with pytest.raises(httpx.RemoteProtocolError, match="100000 bytes"):
        await transport.post(httpx.URL(f"http://127.0.0.1:{port}/"), [(b"host", b"x")], b"{}", timeout_s=LIMIT_S)
    async with asyncio.timeout(LIMIT_S):
        await closed.wait()
    await transport.aclose()
    server.close()


async def test_an_answer_at_the_limit_is_taken():
    """The limit counts the head and the body of each answer alone, on a connection that brings several."""
    body = b"x" * 1000
    answer = HEAD % len(body) + body

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n{}")
                writer.write(answer)
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = httpx.URL(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    transport = HttptoolsTransport(max_answer_bytes=len(answer))
    for _ in range(3):
        assert (await transport.post(url, [(b"host", b"x")], b"{}", timeout_s=LIMIT_S)).body == body
    await transport.aclose()
    server.close()
