"""The hop transport against a server whose every byte the test controls."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from chassis.wire.transport import HttptoolsTransport
from tests.waiting import until

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self.connections = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self._talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(talk: Talk) -> AsyncIterator[Server]:
    server = Server(talk)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/"
    try:
        yield server
    finally:
        listener.close()


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return head, await reader.readexactly(length)


def answering(answer: bytes) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            writer.write(answer)

    return talk


@pytest.fixture
async def transport() -> AsyncIterator[HttptoolsTransport]:
    opened = HttptoolsTransport(max_connections=4)
    yield opened
    await opened.aclose()


async def post(transport: HttptoolsTransport, url: str, body: bytes = b"{}", **timeout: float) -> httpx.Response:
    request = httpx.Request("POST", url, content=body, extensions={"timeout": timeout})
    return await transport.handle_async_request(request)


async def test_a_request_and_its_answer_are_transferred_whole(transport):
    """The server receives method, target, headers and body as given; the caller receives status, headers and body."""
    seen: list[tuple[bytes, bytes]] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(b"HTTP/1.1 418 Teapot\r\nX-Kind: Short\r\nContent-Length: 5\r\n\r\nstout")

    async with serving(talk) as server:
        request = httpx.Request("POST", server.url + "a?b=c", headers={"x-one": "1"}, content=b"body")
        response = await transport.handle_async_request(request)
    head, body = seen[0]
    assert head.startswith(b"POST /a?b=c HTTP/1.1\r\n")
    assert b"x-one: 1\r\n" in head
    assert body == b"body"
    assert (response.status_code, response.headers["x-kind"], response.content) == (418, "Short", b"stout")
    assert response.request is request


async def test_connections_are_reused(transport):
    """Consecutive requests share one connection."""
    async with serving(answering(OK)) as server:
        for _ in range(5):
            assert (await post(transport, server.url)).content == b"ok"
    assert server.connections == 1


async def test_concurrent_requests_open_connections_up_to_the_limit(transport):
    """The transport opens no more connections than allowed, and further requests wait."""
    async with serving(answering(OK)) as server:
        responses = await asyncio.gather(*(post(transport, server.url) for _ in range(20)))
    assert {response.content for response in responses} == {b"ok"}
    assert server.connections == 4


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
    ],
    ids=["chunked", "interim"],
)
async def test_chunked_and_interim_answers_are_assembled(transport, answer):
    """The transport joins the chunks of an answer and skips interim answers."""
    async with serving(answering(answer)) as server:
        assert (await post(transport, server.url)).content == b"ok"
        assert (await post(transport, server.url)).content == b"ok"
    assert server.connections == 1


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nall of it", b"all of it"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nok", b"ok"),
    ],
    ids=["HTTP/1.0", "empty", "after an interim one"],
)
async def test_an_answer_without_a_length_ends_with_its_connection(transport, answer, body):
    """An answer without a length and without chunks ends when the connection closes."""

    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)

    async with serving(leave) as server:
        for _ in range(2):
            response = await post(transport, server.url)
            assert (response.status_code, response.content) == (200, body)
    assert server.connections == 2


async def test_an_earlier_answer_is_not_returned_again(transport):
    """A connection that closes during the second request is an error, even if the first answer had no body."""

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await read_request(reader)

    async with serving(once) as server:
        assert (await post(transport, server.url)).status_code == 204
        with pytest.raises(httpx.RemoteProtocolError):
            await post(transport, server.url)
    assert server.connections == 1


async def test_trailers_are_not_headers(transport):
    """Trailers after the last chunk do not change the headers of the answer."""
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nRetry-After: 9\r\nX-Late: 1\r\n\r\n"
    async with serving(answering(answer)) as server:
        for _ in range(2):
            response = await post(transport, server.url)
            assert response.content == b"ok"
            assert not {"retry-after", "x-late"} & set(response.headers)
    assert server.connections == 1


async def test_an_answer_that_says_close_ends_its_connection(transport):
    """The transport obeys `Connection: close`."""
    close = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
    async with serving(answering(close)) as server:
        for _ in range(3):
            assert (await post(transport, server.url)).content == b"ok"
    assert server.connections == 3


async def test_a_connection_closed_while_idle_is_replaced(transport):
    """A server that closes an idle connection causes a new connection, not an error."""

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)

    async with serving(once) as server:
        for _ in range(3):
            assert (await post(transport, server.url)).content == b"ok"
            await until(lambda: transport.idle == 0)
    assert server.connections == 3


async def test_old_connections_are_retired():
    """A connection older than the maximum age is closed after use, so that its host name is resolved again."""
    transport = HttptoolsTransport(max_age_s=-1.0)
    async with serving(answering(OK)) as server:
        for _ in range(2):
            await post(transport, server.url)
    assert server.connections == 2


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
    arrived, release = asyncio.Event(), asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        arrived.set()
        await release.wait()
        writer.write(OK)

    transport = HttptoolsTransport(max_connections=1)
    async with serving(slow) as server:
        first = asyncio.create_task(post(transport, server.url))
        await arrived.wait()
        with pytest.raises(httpx.PoolTimeout):
            await post(transport, server.url, pool=0.02)
        release.set()
        assert (await first).content == b"ok"


async def test_the_stages_of_a_post_share_one_timeout(turns, monkeypatch):
    """Time spent waiting for a connection is deducted from the time left for the answer."""
    arrived, release = asyncio.Event(), asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        arrived.set()
        await release.wait()
        writer.write(OK)
        await read_request(reader)
        await asyncio.Event().wait()

    transport = HttptoolsTransport(max_connections=1)
    async with serving(slow) as server:
        url = httpx.URL(server.url)
        first = asyncio.create_task(transport.post(url, [], b"{}", timeout_s=60))
        await arrived.wait()
        second = asyncio.create_task(transport.post(url, [], b"{}", timeout_s=100))
        await turns()
        late = time.monotonic() + 101
        monkeypatch.setattr(time, "monotonic", lambda: late)
        release.set()
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


async def test_surplus_bytes_close_the_connection(transport):
    """The transport drops a connection with bytes after the answer, which could be taken for the next answer."""
    async with serving(answering(OK + OK)) as server:
        for _ in range(2):
            assert (await post(transport, server.url)).content == b"ok"
            await until(lambda: transport.idle == 0)
    assert server.connections == 2


async def test_a_cancelled_request_closes_its_connection(transport):
    """The connection of a cancelled request is not reused."""
    arrived, hold = asyncio.Event(), asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        arrived.set()
        await hold.wait()
        writer.write(OK)

    async with serving(slow) as server:
        request = asyncio.create_task(post(transport, server.url))
        await arrived.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        hold.set()
        assert (await post(transport, server.url)).content == b"ok"
    assert server.connections == 2


async def test_httpx_accepts_the_transport():
    """An ordinary httpx client works with the transport."""
    async with serving(answering(OK)) as server, httpx.AsyncClient(transport=HttptoolsTransport()) as client:
        assert (await client.post(server.url, json={"a": 1})).text == "ok"


async def test_busy_connections_close_after_their_answer():
    """Closing the transport ends idle connections immediately and busy ones after their answer."""
    arrived, hold = asyncio.Event(), asyncio.Event()
    closed = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        arrived.set()
        await hold.wait()
        writer.write(OK)
        await reader.read()
        closed.set()

    transport = HttptoolsTransport()
    async with serving(slow) as server:
        request = asyncio.create_task(post(transport, server.url))
        await arrived.wait()
        await transport.aclose()
        hold.set()
        assert (await request).content == b"ok"
        await closed.wait()


async def test_names_below_localhost_are_this_machine():
    """A name that ends in .localhost leads to this machine, even if the resolver does not know it. Host stays the name."""
    seen: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append((await read_request(reader))[0])
        writer.write(OK)

    async with serving(talk) as server, httpx.AsyncClient(transport=HttptoolsTransport()) as client:
        url = server.url.replace("127.0.0.1", "candidate-front.default.localhost")
        assert (await client.post(url, content=b"x")).text == "ok"
    assert b"candidate-front.default.localhost" in seen[0]
