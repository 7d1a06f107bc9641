"""A connection without a socket, and a service behind either of two protocols, for tests of the HTTP server."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from chassis.call import Call, Handler, Reply
from chassis.environment import Reader
from chassis.server.asgi import Shell
from chassis.server.service import Service
from chassis.server.settings import ServingSettings

SETTINGS = ServingSettings.read(Reader({"K_REVISION": "echo-00001", "AUTH": "off"}), name="echo", max_body_bytes=1024)
_TIMES = re.compile(rb"dur=[0-9.]+")


class Wire(asyncio.Transport):
    """A transport that records writes; the protocol learns of a close one turn later, as with a socket."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = False
        self.reading = True
        self.protocol: Any = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.closed:
            self.writes.append(bytes(data))

    def close(self) -> None:
        if not self.closed:
            self.hang_up()

    def hang_up(self) -> None:
        self.closed = True
        asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    @property
    def sent(self) -> bytes:
        """Everything written, with the durations removed."""
        return _TIMES.sub(b"dur=", b"".join(self.writes))


class ProtocolServer:
    """A service behind either of the two protocols."""

    def __init__(self, kind: type[HttpToolsProtocol], handler: Handler) -> None:
        @asynccontextmanager
        async def open_handler() -> AsyncIterator[Handler]:
            yield handler

        self.service = Service("echo", open_handler, settings=SETTINGS)
        shell = Shell(lambda *_: None, self.service, on_failed_start=lambda: None)  # type: ignore[arg-type]
        self.config = uvicorn.Config(
            shell,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=120,
        )
        self.config.load()
        self.state = ServerState()
        self.kind = kind

    def connect(self) -> Wire:
        wire = Wire()
        wire.protocol = self.kind(config=self.config, server_state=self.state, app_state={})
        wire.protocol.connection_made(wire)
        return wire

    async def talk(self, parts: Sequence[bytes]) -> Wire:
        """Feed *parts* to a new connection one by one, leaving time for an answer after each."""
        wire = self.connect()
        for part in parts:
            if not wire.closed:
                wire.protocol.data_received(part)
            await settle()
        return wire


async def settle() -> None:
    for _ in range(12):
        await asyncio.sleep(0)


async def echo(call: Call) -> Reply:
    if call.body == b"crash":
        raise KeyError
    return Reply(call.body, headers=((b"x-asked", b"%d" % len(call.body)),))


def request(body: bytes = b'{"a":1}', *headers: bytes, start: bytes = b"POST / HTTP/1.1", length: bool = True) -> bytes:
    lines = [start, b"Host: x", b"X-Request-Id: r1", *headers]
    if length:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nX-Request-Id: r1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"


def cut(talk: bytes, cuts: set[int]) -> list[bytes]:
    borders = [0, *sorted(cuts), len(talk)]
    return [talk[start:end] for start, end in pairwise(borders)]
