"""A server that answers as a test says, byte by byte."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx

from chassis.wire.transport import HttptoolsTransport

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """Count connections; the n-th of *talks* handles the n-th connection, and the last all later ones."""

    def __init__(self, *talks: Talk) -> None:
        self._talks = talks
        self.connections = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = self._talks[min(self.connections, len(self._talks) - 1)]
        self.connections += 1
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(*talks: Talk) -> AsyncIterator[Server]:
    server = Server(*talks)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
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


class Held:
    """Answers requests once the test sets `release`; then waits for the end of the connection."""

    def __init__(self) -> None:
        self.arrived, self.release, self.closed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        self.arrived.set()
        await self.release.wait()
        writer.write(OK)
        await reader.read()
        self.closed.set()


async def post(transport: HttptoolsTransport, url: str, body: bytes = b"{}", **timeout: float) -> httpx.Response:
    request = httpx.Request("POST", url, content=body, extensions={"timeout": timeout})
    return await transport.handle_async_request(request)
