"""What posts events: connections that are kept, and what happens to broken ones."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import trustme

from knbroker.client import Client

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Server:
    """Answers each request on each connection with the next of *script*; None closes the connection instead."""

    def __init__(self, script: Sequence[bytes | None]) -> None:
        self.script = list(script)
        self.requests: list[bytes] = []
        self.connections = 0
        self.url = ""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError):
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
        client.close()
        listener.close()


async def test_connections_are_kept() -> None:
    """Two posts, one connection; path, query, headers and body arrive."""
    async with serving(OK, OK) as (server, client):
        for _ in range(2):
            answer = await client.post(server.url, headers=[("ce-id", "1")], body=b"abc")
            assert (answer.status, bytes(answer.body), answer.headers) == (200, b"ok", [(b"content-length", b"2")])
        assert server.connections == 1
        assert server.requests[0].startswith(b"POST /in?x=1 HTTP/1.1\r\nhost: 127.0.0.1:")
        assert server.requests[0].endswith(b"ce-id: 1\r\n\r\nabc")


async def test_a_kept_connection_that_broke_is_made_anew() -> None:
    """The server closed it while it was idle, or as the request came: the post is sent again on a new one."""
    async with serving(OK, None, OK, OK) as (server, client):
        await client.post(server.url, headers=[], body=b"1")
        assert (await client.post(server.url, headers=[], body=b"2")).status == 200
        assert server.connections == 2
        (reader, writer) = client._idle[server.url.removesuffix("/in?x=1")][0]
        reader.feed_eof()
        assert (await client.post(server.url, headers=[], body=b"3")).status == 200
        assert server.connections == 3
        writer.close()


async def test_without_an_answer_it_is_an_error() -> None:
    """On a new connection it is not tried again: that is for the back-off."""
    async with serving(None) as (server, client):
        with pytest.raises(ConnectionError, match="ended before the answer"):
            await client.post(server.url, headers=[], body=b"")
        assert server.connections == 1
    with pytest.raises(OSError, match="."):
        await client.post(server.url, headers=[], body=b"")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n" + b"x" * 11, "longer than 10 bytes"),
        (b"SMTP content-length\r\n\r\n", "not HTTP"),
    ],
)
async def test_answers_that_are_none(said: bytes, reason: str) -> None:
    """Too long, or not HTTP."""
    async with serving(said) as (server, client):
        with pytest.raises(ConnectionError, match=reason):
            await client.post(server.url, headers=[], body=b"")


async def test_an_answer_may_end_with_its_connection() -> None:
    """Without a length; the connection is not kept. An informational answer before it is skipped."""
    async with serving(b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.0 202 X\r\n\r\nok", OK) as (server, client):
        answer = await client.post(server.url, headers=[], body=b"")
        assert (answer.status, bytes(answer.body)) == (202, b"ok")
        await client.post(server.url, headers=[], body=b"")
        assert server.connections == 2


async def test_https_is_spoken_where_the_url_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a certificate of somebody this machine trusts."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    async with serving(OK, context=context) as (server, client):
        url = server.url.replace("http://127.0.0.1", "https://localhost")
        assert (await client.post(url, headers=[], body=b"")).status == 200
