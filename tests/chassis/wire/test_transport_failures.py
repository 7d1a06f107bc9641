"""Each failure of a connection raises the error of httpx that names it, and no answer fills the memory."""

import asyncio
import time

import httpx
import pytest

from chassis.wire.transport import HttptoolsTransport
from tests.chassis.wire.servers import Held, answering, post, read_request, serving
from tests.waiting import LIMIT_S


async def test_a_refused_connection_is_a_connect_error(transport, free_port):
    """A refused connection raises ConnectError: nothing was sent."""
    with pytest.raises(httpx.ConnectError):
        await post(transport, f"http://127.0.0.1:{free_port}/")


async def test_an_unknown_host_is_a_connect_error(transport):
    """A host name that does not resolve raises ConnectError."""
    with pytest.raises(httpx.ConnectError):
        await post(transport, "http://no-such-host.invalid/")


async def test_a_silent_server_is_a_read_timeout(transport):
    """A server that does not answer in time causes ReadTimeout, and its connection is not reused."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(silent) as server:
        for _ in range(2):
            with pytest.raises(httpx.ReadTimeout):
                await post(transport, server.url, read=0.02)
    assert server.connections == 2


async def test_a_full_pool_is_a_pool_timeout():
    """A request that finds every connection busy for too long raises PoolTimeout."""
    held = Held()
    transport = HttptoolsTransport(max_connections=1)
    async with serving(held.talk) as server:
        first = asyncio.create_task(post(transport, server.url))
        await held.arrived.wait()
        with pytest.raises(httpx.PoolTimeout):
            await post(transport, server.url, pool=0.02)
        held.release.set()
        assert (await first).content == b"ok"


async def test_the_stages_of_a_post_share_one_timeout(turns, monkeypatch):
    """Time spent waiting for a connection is deducted from the time left for the answer."""
    held = Held()
    transport = HttptoolsTransport(max_connections=1)
    async with serving(held.talk) as server:
        url = httpx.URL(server.url)
        first = asyncio.create_task(transport.post(url, [], b"{}", timeout_s=60))
        await held.arrived.wait()
        second = asyncio.create_task(transport.post(url, [], b"{}", timeout_s=100))
        await turns()
        late = time.monotonic() + 101
        monkeypatch.setattr(time, "monotonic", lambda: late)
        held.release.set()
        with pytest.raises(httpx.ReadTimeout):
            await asyncio.wait_for(second, 60)
        assert (await first).status == 200
    await transport.aclose()


async def test_a_hanging_connect_is_a_connect_timeout(transport, monkeypatch):
    """A connection that is not established in time raises ConnectTimeout."""

    async def hang(*_args: object, **_kwargs: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop().__class__, "create_connection", hang, raising=False)
    with pytest.raises(httpx.ConnectTimeout):
        await post(transport, "http://127.0.0.1:9/", connect=0.01)


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ],
    ids=["nothing", "half a head", "an interim answer", "half a body", "no last chunk"],
)
async def test_an_incomplete_answer_is_a_protocol_error(transport, start):
    """A connection that closes before the answer is complete raises RemoteProtocolError."""

    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(start)

    async with serving(leave) as server:
        with pytest.raises(httpx.RemoteProtocolError):
            await post(transport, server.url)


async def test_a_reset_is_a_read_error(transport):
    """A connection reset during the answer raises ReadError or RemoteProtocolError."""

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.transport.abort()

    async with serving(reset) as server:
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await post(transport, server.url)


async def test_an_answer_that_is_not_http_is_a_protocol_error(transport):
    """An answer that is not HTTP raises RemoteProtocolError and closes the connection."""
    async with serving(answering(b"SSH-2.0-OpenSSH_9.2\r\n")) as server:
        with pytest.raises(httpx.RemoteProtocolError):
            await post(transport, server.url)


HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n"


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

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        try:
            while True:
                writer.write(flood)
                await writer.drain()
        finally:
            closed.set()

    transport = HttptoolsTransport(max_answer_bytes=100_000)
    async with serving(talk) as server, asyncio.timeout(LIMIT_S):
        with pytest.raises(httpx.RemoteProtocolError, match="100000 bytes"):
            await post(transport, server.url)
        await closed.wait()
    await transport.aclose()


async def test_an_answer_at_the_limit_is_taken():
    """The limit counts the head and the body of each answer alone, on a connection that brings several."""
    body = b"x" * 1000
    answer = HEAD % len(body) + body
    transport = HttptoolsTransport(max_answer_bytes=len(answer))
    async with serving(answering(answer)) as server:
        for _ in range(3):
            assert (await post(transport, server.url)).content == body
    assert server.connections == 1
    await transport.aclose()
