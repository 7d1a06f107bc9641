"""What posts events: connections that are kept, and what happens to broken ones."""

import asyncio
import contextlib
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import httpx
import pytest
import trustme

from knbroker.client import Client

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
TIMED_OUT = b"HTTP/1.1 408 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
UPGRADE = b"HTTP/1.1 101 X\r\ncontent-length: 0\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """The broker's loop is uvicorn's choice, and the two tell of a broken connection differently."""
    return "asyncio", {"use_uvloop": request.param}


class Server:
    """Answers each request on each connection with the next of *script*; None closes the connection instead."""

    def __init__(self, script: Sequence[bytes | None]) -> None:
        self.script = list(script)
        self.requests: list[bytes] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.ended = asyncio.Event()
        self.url = ""

    @property
    def connections(self) -> int:
        return len(self.writers)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            await self._answer(reader, writer)
        finally:
            writer.close()
            self.ended.set()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.requests.append(
                    head + await reader.readexactly(int(head.split(b"content-length: ")[1].split()[0]))
                )
                said = self.script.pop(0)
                if said is None:
                    return
                writer.write(said)
                if b"content-length" not in said:
                    return


@contextlib.asynccontextmanager
async def serving(*script: bytes | None, context: ssl.SSLContext | None = None) -> AsyncIterator[tuple[Server, Client]]:
    """A server with a script, and a client."""
    server = Server(script)
    listener = await asyncio.start_server(server, "127.0.0.1", 0, ssl=context)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/in?x=1"
    client = Client(limit_bytes=10)
    try:
        yield server, client
    finally:
        await client.aclose()
        listener.close()


async def test_connections_are_kept() -> None:
    """Two posts, one connection; path, query, headers and body arrive."""
    async with serving(OK, OK) as (server, client):
        for _ in range(2):
            answer = await client.post(server.url, headers=[("ce-id", "1")], body=b"abc", timeout_s=5.0)
            assert (answer.status, bytes(answer.body), answer.headers) == (200, b"ok", [(b"content-length", b"2")])
        assert server.connections == 1
        assert server.requests[0].startswith(b"POST /in?x=1 HTTP/1.1\r\nhost: 127.0.0.1:")
        assert b"\r\nce-id: 1\r\n" in server.requests[0]
        assert server.requests[0].endswith(b"\r\n\r\nabc")


async def test_a_header_may_come_several_times() -> None:
    """Each is sent, in order: a tracestate may be in parts."""
    async with serving(OK) as (server, client):
        await client.post(server.url, headers=[("tracestate", "a=1"), ("tracestate", "b=2")], body=b"", timeout_s=5.0)
        assert b"\r\ntracestate: a=1\r\ntracestate: b=2\r\n" in server.requests[0]


async def test_a_kept_connection_that_broke_is_made_anew() -> None:
    """The server closed it while it was idle, or as the request came: the post is sent again on a new one."""
    async with serving(OK, None, OK, OK) as (server, client):
        await client.post(server.url, headers=[], body=b"1", timeout_s=5.0)
        assert (await client.post(server.url, headers=[], body=b"2", timeout_s=5.0)).status == 200
        assert server.connections == 2
        server.writers[1].close()
        await closed(client)
        assert (await client.post(server.url, headers=[], body=b"3", timeout_s=5.0)).status == 200
        assert server.connections == 3


async def test_a_kept_connection_that_was_reset_is_made_anew() -> None:
    """As by a subscriber that was killed, or a proxy that forgot the connection."""
    async with serving(OK, OK) as (server, client):
        await client.post(server.url, headers=[], body=b"1", timeout_s=5.0)
        reset(server.writers[0])
        await closed(client)
        assert (await client.post(server.url, headers=[], body=b"2", timeout_s=5.0)).status == 200
        assert server.connections == 2


async def test_a_connection_that_is_reset_at_once_is_an_error() -> None:
    """An OSError like any other, whichever loop finds out at whichever step."""

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reset(writer)

    listener = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with listener:
        url, client = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/", Client(limit_bytes=10)
        posts = (client.post(url, headers=[], body=b"x", timeout_s=5.0) for _ in range(16))
        errors = await asyncio.gather(*posts, return_exceptions=True)
    assert [error for error in errors if not isinstance(error, httpx.TransportError)] == []


@pytest.mark.parametrize("surplus", [OK, TIMED_OUT, b"x", b"\r\n"])
async def test_what_comes_unasked_is_no_answer(surplus: bytes) -> None:
    """A second answer, or a server's farewell to an idle connection: it is closed, and the next post has its own."""
    async with serving(OK, b"HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n") as (server, client):
        await client.post(server.url, headers=[], body=b"1", timeout_s=5.0)
        server.writers[0].write(surplus)
        async with asyncio.timeout(5):
            await server.ended.wait()
        assert (await client.post(server.url, headers=[], body=b"2", timeout_s=5.0)).status == 503
        assert server.connections == 2


@pytest.mark.parametrize("surplus", [OK, TIMED_OUT, UPGRADE, b"x"])
async def test_what_comes_with_an_answer_does_not_change_it(surplus: bytes) -> None:
    """The first one counts, and the connection is not kept."""
    async with serving(OK + surplus, OK) as (server, client):
        for _ in range(2):
            answer = await client.post(server.url, headers=[], body=b"", timeout_s=5.0)
            assert (answer.status, bytes(answer.body), answer.headers) == (200, b"ok", [(b"content-length", b"2")])
        assert server.connections == 2


async def test_without_an_answer_it_is_an_error() -> None:
    """On a new connection it is not tried again: that is for the back-off."""
    async with serving(None) as (server, client):
        with pytest.raises(httpx.RemoteProtocolError, match="without an answer"):
            await client.post(server.url, headers=[], body=b"", timeout_s=5.0)
        assert server.connections == 1
    with pytest.raises(httpx.ConnectError, match="cannot be reached"):
        await client.post(server.url, headers=[], body=b"", timeout_s=5.0)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 65600\r\n\r\n" + b"x" * 65_600, "exceeds 65546 bytes"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx: " + b"a" * 70_000, "exceeds 65546 bytes"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n" + b"x: y\r\n" * 20_000, "exceeds 65546 bytes"),
        (b"HTTP/1.1 103 Early content-length\r\n\r\n" * 2_000, "exceeds 65546 bytes"),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx: content-length\r\n\r\n1;" + b"e" * 70_000,
            "exceeds 65546 bytes",
        ),
        (b"SMTP content-length\r\n\r\n", "not an HTTP answer"),
        (UPGRADE, "not an HTTP answer"),
        (b"HTTP/1.1 103 Early\r\n\r\n", "without an answer"),
    ],
)
async def test_answers_that_are_none(said: bytes, reason: str) -> None:
    """Too long, not HTTP, an upgrade to something else, or only the promise of one."""
    async with serving(said) as (server, client):
        with pytest.raises(httpx.TransportError, match=reason):
            await client.post(server.url, headers=[], body=b"", timeout_s=5.0)


async def test_an_answer_that_began_is_not_asked_for_again() -> None:
    """It would be the same on another connection: that is for the back-off, on a kept connection as well."""
    async with serving(OK, UPGRADE, OK) as (server, client):
        await client.post(server.url, headers=[], body=b"1", timeout_s=5.0)
        with pytest.raises(httpx.RemoteProtocolError, match="not an HTTP answer"):
            await client.post(server.url, headers=[], body=b"2", timeout_s=5.0)
        assert len(server.requests) == 2


async def test_an_answer_may_end_with_its_connection() -> None:
    """Without a length; the connection is not kept. An informational answer before it is skipped."""
    early = b"HTTP/1.1 103 Early\r\nlink: </style.css>\r\n\r\n"
    async with serving(early + b"HTTP/1.0 202 X\r\n\r\nok", OK) as (server, client):
        answer = await client.post(server.url, headers=[], body=b"", timeout_s=5.0)
        assert (answer.status, bytes(answer.body), answer.headers) == (202, b"ok", [])
        await client.post(server.url, headers=[], body=b"", timeout_s=5.0)
        assert server.connections == 2


async def test_https_is_spoken_where_the_url_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a certificate of somebody this machine trusts."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    async with serving(OK, context=context) as (server, client):
        url = server.url.replace("http://127.0.0.1", "https://localhost")
        assert (await client.post(url, headers=[], body=b"", timeout_s=5.0)).status == 200


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection without the pleasantries."""
    connected: socket.socket = writer.get_extra_info("socket")
    with socket.socket(fileno=os.dup(connected.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def closed(client: Client) -> None:
    """Return once the client knows that no connection it keeps can be used."""
    while any(origin._idle for origin in client._transport._origins.values()):
        await asyncio.sleep(0.001)
