"""Metrics are read over kept connections, after a pause for all instances."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import closing

import httpx
import pytest

from kndashboard.scraper import Scraper

pytestmark = pytest.mark.anyio


class Instance:
    """A server that answers each request with the parts that the test sets; None closes the connection."""

    def __init__(self) -> None:
        self.parts: list[bytes | None] = []
        self.connections = self.requests = 0
        self.hold = asyncio.Event()
        self.hold.set()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with closing(writer):
            while await self._requested(reader):
                self.requests += 1
                for part in self.parts:
                    if part is None:
                        return
                    writer.write(part)
                    await writer.drain()
                    await self.hold.wait()

    async def _requested(self, reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return b""


def answer(body: bytes, *more: bytes, status: bytes = b"200 OK") -> bytes:
    head = b"HTTP/1.1 " + status + b"\r\ncontent-length: %d\r\n" % len(body)
    return head + b"".join(each + b"\r\n" for each in more) + b"\r\n" + body


@pytest.fixture
async def instance() -> AsyncIterator[tuple[Instance, int]]:
    served = Instance()
    server = await asyncio.start_server(served.talk, "127.0.0.1", 0)
    async with server:
        yield served, server.sockets[0].getsockname()[1]


@pytest.fixture
async def scraper() -> AsyncIterator[Scraper]:
    with closing(Scraper(settle_s=0.0, timeout_s=10.0)) as opened:
        yield opened


async def test_a_connection_is_kept(instance, scraper):
    """Requests to the same port use one connection."""
    served, port = instance
    served.parts = [answer(b"a 1\n")]
    assert [await scraper.read(port) for _ in range(3)] == ["a 1\n"] * 3
    assert (served.connections, served.requests) == (1, 3)


async def test_an_answer_may_arrive_late_and_in_parts(instance, scraper):
    """The scraper waits for the rest of an answer that has not arrived after the pause."""
    served, port = instance
    served.hold.clear()
    whole = answer(b"a 1\n" * 50_000)
    served.parts = [whole[:20], whole[20:]]
    reading = asyncio.create_task(scraper.read(port))
    while not served.requests:
        await asyncio.sleep(0)
    served.hold.set()
    assert await reading == "a 1\n" * 50_000


async def test_a_closed_connection_is_replaced(instance, scraper):
    """An answer that says so ends its connection; the next request opens another one."""
    served, port = instance
    served.parts = [answer(b"a 1\n", b"connection: close")]
    assert [await scraper.read(port) for _ in range(2)] == ["a 1\n"] * 2
    assert served.connections == 2


async def test_an_answer_without_a_length_ends_with_its_connection(instance, scraper):
    """Servers of HTTP/1.0 close the connection after the body."""
    served, port = instance
    served.parts = [b"HTTP/1.0 200 OK\r\n\r\na 1\n", None]
    assert await scraper.read(port) == "a 1\n"


@pytest.mark.parametrize(
    "parts", [[answer(b"", status=b"503 Busy")], [None], [b"HTTP/1.1 200 OK\r\n", None], [b"SSH-2.0\r\n"]]
)
async def test_another_answer_is_an_error(instance, scraper, parts):
    """An error status, a closed connection and another protocol are errors, and the next answer is read again."""
    served, port = instance
    served.parts = parts
    with pytest.raises(httpx.HTTPError):
        await scraper.read(port)
    served.parts = [answer(b"a 1\n")]
    assert await scraper.read(port) == "a 1\n"


async def test_an_instance_that_does_not_answer_is_given_up(instance):
    """The wait for an answer has an end."""
    _, port = instance
    with closing(Scraper(settle_s=0.0, timeout_s=0.01)) as scraper, pytest.raises(httpx.TransportError):
        await scraper.read(port)


async def test_a_port_without_a_server_is_an_error(scraper):
    """Nothing listens on the port of an instance that has ended."""
    # A socket that does not listen keeps the port from other programs.
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        with pytest.raises(httpx.ConnectError):
            await scraper.read(held.getsockname()[1])
