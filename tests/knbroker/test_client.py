"""The client that posts events: connections it keeps, and connections that break."""

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

from knbroker.client import DeliveryClient
from tests.waiting import LIMIT_S, until

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
TIMED_OUT = b"HTTP/1.1 408 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
UPGRADE = b"HTTP/1.1 101 X\r\ncontent-length: 0\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Run each test on both loops that uvicorn may choose, because they report a broken connection differently."""
    return "asyncio", {"use_uvloop": request.param}


class Server:
    """Answer each request with the next step of *script*; None closes the connection instead."""

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
async def serving(
    *script: bytes | None, context: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[Server, DeliveryClient]]:
    """Start a server with a script, and return it with a client."""
    server = Server(script)
    listener = await asyncio.start_server(server, "127.0.0.1", 0, ssl=context)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/in?x=1"
    client = DeliveryClient(limit_bytes=10)
    try:
        yield server, client
    finally:
        await client.aclose()
        listener.close()


async def test_connections_are_reused() -> None:
    """Two posts share a connection, and path, query, headers and body arrive."""
    async with serving(OK, OK) as (server, client):
        for _ in range(2):
            answer = await client.post(server.url, headers=[("ce-id", "1")], body=b"abc", timeout_s=LIMIT_S)
            assert (answer.status, bytes(answer.body), answer.headers) == (200, b"ok", [(b"content-length", b"2")])
        assert server.connections == 1
        assert server.requests[0].startswith(b"POST /in?x=1 HTTP/1.1\r\nhost: 127.0.0.1:")
        assert b"\r\nce-id: 1\r\n" in server.requests[0]
        assert server.requests[0].endswith(b"\r\n\r\nabc")


async def test_a_repeated_header_is_sent_repeatedly() -> None:
    """The client sends each value in order, because a tracestate may have several parts."""
    async with serving(OK) as (server, client):
        await client.post(
            server.url, headers=[("tracestate", "a=1"), ("tracestate", "b=2")], body=b"", timeout_s=LIMIT_S
        )
        assert b"\r\ntracestate: a=1\r\ntracestate: b=2\r\n" in server.requests[0]


async def test_a_closed_connection_is_replaced() -> None:
    """If the server closes a kept connection, idle or during the request, the client repeats the post on a new one."""
    async with serving(OK, None, OK, OK) as (server, client):
        await client.post(server.url, headers=[], body=b"1", timeout_s=LIMIT_S)
        assert (await client.post(server.url, headers=[], body=b"2", timeout_s=LIMIT_S)).status == 200
        assert server.connections == 2
        server.writers[1].close()
        await wait_until_closed(client)
        assert (await client.post(server.url, headers=[], body=b"3", timeout_s=LIMIT_S)).status == 200
        assert server.connections == 3


async def test_a_reset_connection_is_replaced() -> None:
    """The client replaces a kept connection that a killed subscriber or a proxy has reset."""
    async with serving(OK, OK) as (server, client):
        await client.post(server.url, headers=[], body=b"1", timeout_s=LIMIT_S)
        reset(server.writers[0])
        await wait_until_closed(client)
        assert (await client.post(server.url, headers=[], body=b"2", timeout_s=LIMIT_S)).status == 200
        assert server.connections == 2


async def test_a_new_connection_that_is_reset_is_an_error() -> None:
    """A reset raises OSError on both loops and at every step of the request."""

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reset(writer)

    listener = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with listener:
        url, client = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/", DeliveryClient(limit_bytes=10)
        posts = (client.post(url, headers=[], body=b"x", timeout_s=LIMIT_S) for _ in range(16))
        errors = await asyncio.gather(*posts, return_exceptions=True)
    assert [error for error in errors if not isinstance(error, httpx.TransportError)] == []


@pytest.mark.parametrize("surplus", [OK, TIMED_OUT, b"x", b"\r\n"])
async def test_surplus_bytes_close_an_idle_connection(surplus: bytes) -> None:
    """The client closes an idle connection that receives bytes, and the next post gets its own answer."""
    async with serving(OK, b"HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n") as (server, client):
        await client.post(server.url, headers=[], body=b"1", timeout_s=LIMIT_S)
        server.writers[0].write(surplus)
        async with asyncio.timeout(LIMIT_S):
            await server.ended.wait()
        assert (await client.post(server.url, headers=[], body=b"2", timeout_s=LIMIT_S)).status == 503
        assert server.connections == 2


@pytest.mark.parametrize("surplus", [OK, TIMED_OUT, UPGRADE, b"x"])
async def test_surplus_bytes_do_not_change_the_answer(surplus: bytes) -> None:
    """The first answer counts, and the connection is not kept."""
    async with serving(OK + surplus, OK) as (server, client):
        for _ in range(2):
            answer = await client.post(server.url, headers=[], body=b"", timeout_s=LIMIT_S)
            assert (answer.status, bytes(answer.body), answer.headers) == (200, b"ok", [(b"content-length", b"2")])
        assert server.connections == 2


async def test_a_missing_answer_is_an_error() -> None:
    """The client does not retry on a new connection; the broker's back-off does."""
    async with serving(None) as (server, client):
        with pytest.raises(httpx.RemoteProtocolError, match="without an answer"):
            await client.post(server.url, headers=[], body=b"", timeout_s=LIMIT_S)
        assert server.connections == 1
    with pytest.raises(httpx.ConnectError, match="cannot be reached"):
        await client.post(server.url, headers=[], body=b"", timeout_s=LIMIT_S)


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
async def test_invalid_answers_are_errors(said: bytes, reason: str) -> None:
    """An answer that is too long, not HTTP, an upgrade, or only informational raises ConnectionError."""
    async with serving(said) as (server, client):
        with pytest.raises(httpx.TransportError, match=reason):
            await client.post(server.url, headers=[], body=b"", timeout_s=LIMIT_S)


async def test_an_invalid_answer_is_not_requested_again() -> None:
    """The client does not repeat a post that was answered, also on a kept connection."""
    async with serving(OK, UPGRADE, OK) as (server, client):
        await client.post(server.url, headers=[], body=b"1", timeout_s=LIMIT_S)
        with pytest.raises(httpx.RemoteProtocolError, match="not an HTTP answer"):
            await client.post(server.url, headers=[], body=b"2", timeout_s=LIMIT_S)
        assert len(server.requests) == 2


async def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    """The client reads such an answer to the end, skips informational ones, and closes the connection."""
    early = b"HTTP/1.1 103 Early\r\nlink: </style.css>\r\n\r\n"
    async with serving(early + b"HTTP/1.0 202 X\r\n\r\nok", OK) as (server, client):
        answer = await client.post(server.url, headers=[], body=b"", timeout_s=LIMIT_S)
        assert (answer.status, bytes(answer.body), answer.headers) == (202, b"ok", [])
        await client.post(server.url, headers=[], body=b"", timeout_s=LIMIT_S)
        assert server.connections == 2


async def test_https_urls_use_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client accepts a certificate from an authority that this machine trusts."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    async with serving(OK, context=context) as (server, client):
        url = server.url.replace("http://127.0.0.1", "https://localhost")
        assert (await client.post(url, headers=[], body=b"", timeout_s=LIMIT_S)).status == 200


def reset(writer: asyncio.StreamWriter) -> None:
    """Reset a connection instead of closing it."""
    connected: socket.socket = writer.get_extra_info("socket")
    with socket.socket(fileno=os.dup(connected.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def wait_until_closed(client: DeliveryClient) -> None:
    """Return once none of the client's kept connections can be used."""
    await until(lambda: client.idle_connections == 0)
