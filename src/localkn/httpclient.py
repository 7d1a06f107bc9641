"""As much of an HTTP/1.1 client as probes, Envoy's admin interface and the broker need."""

import asyncio
import sys
from collections.abc import Mapping

import httptools

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_CHUNK_BYTES = 65536
_DELIMITED = {b"content-length", b"transfer-encoding"}


class Answer:
    """A response, filled in by the parser it is given to; the names of its headers are in lower case."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = bytearray()
        self.complete = self.lasting = False
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """
        Take what was received; nothing is the end of the connection.

        Raises:
            ConnectionError: It is no HTTP, or ends too early.
        """
        if data:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserError as error:
                raise ConnectionError("the answer is not HTTP") from error
        elif self.status and not any(name in _DELIMITED for name, _ in self.headers):
            self.complete = True  # without a length, the answer ends with the connection
        else:
            raise ConnectionError("the connection ended before the answer did")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self.status, self.lasting = self._parser.get_status_code(), self._parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        """Called by the parser."""
        self.body += data

    def on_message_complete(self) -> None:
        """Called by the parser, after an informational answer as well."""
        self.complete = self.status >= 200


async def get(
    path: str, *, port: int | None = None, socket: str | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    """
    GET *path* on a new connection to a loopback port or a Unix socket.

    Returns:
        Status and body.

    Raises:
        OSError: Nobody listens, or what answers is not HTTP. The caller sets the time limit.
    """
    opening = asyncio.open_connection("127.0.0.1", port) if socket is None else asyncio.open_unix_connection(socket)
    fields = {"Host": "localhost", **(headers or {}), "Connection": "close"}
    streams, answer = await opening, Answer()
    try:
        await exchange(streams, compose("GET", path, fields), answer)
    finally:
        streams[1].close()
    return answer.status, bytes(answer.body)


async def exchange(streams: Streams, request: bytes, answer: Answer, *, limit_bytes: int = sys.maxsize) -> None:
    """
    Send *request* and receive *answer*.

    Raises:
        OSError: The connection ended too early, what came is not HTTP, or its body is longer than *limit_bytes*.
    """
    reader, writer = streams
    writer.write(request)
    while not answer.complete:
        answer.feed(await reader.read(_CHUNK_BYTES))
        if len(answer.body) > limit_bytes:
            raise ConnectionError(f"the answer is longer than {limit_bytes} bytes")


def compose(method: str, target: str, fields: Mapping[str, str]) -> bytes:
    """Return the head of a request."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")
