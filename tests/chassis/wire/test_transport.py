"""The hop transport against a server whose every byte the test controls."""

import asyncio

import httpx
import pytest

from chassis.wire.transport import HttptoolsTransport
from tests.chassis.wire.servers import OK, Held, answering, post, read_request, serving
from tests.waiting import until


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


async def test_surplus_bytes_close_the_connection(transport):
    """The transport drops a connection with bytes after the answer, which could be taken for the next answer."""
    async with serving(answering(OK + OK)) as server:
        for _ in range(2):
            assert (await post(transport, server.url)).content == b"ok"
            await until(lambda: transport.idle == 0)
    assert server.connections == 2


async def test_a_cancelled_request_closes_its_connection(transport):
    """The connection of a cancelled request is not reused."""
    held = Held()
    async with serving(held.talk) as server:
        request = asyncio.create_task(post(transport, server.url))
        await held.arrived.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        held.release.set()
        assert (await post(transport, server.url)).content == b"ok"
    assert server.connections == 2


async def test_httpx_accepts_the_transport():
    """An ordinary httpx client works with the transport."""
    async with serving(answering(OK)) as server, httpx.AsyncClient(transport=HttptoolsTransport()) as client:
        assert (await client.post(server.url, json={"a": 1})).text == "ok"


async def test_busy_connections_close_after_their_answer():
    """Closing the transport ends idle connections immediately and busy ones after their answer."""
    held = Held()
    transport = HttptoolsTransport()
    async with serving(held.talk) as server:
        request = asyncio.create_task(post(transport, server.url))
        await held.arrived.wait()
        await transport.aclose()
        held.release.set()
        assert (await request).content == b"ok"
        await held.closed.wait()


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
