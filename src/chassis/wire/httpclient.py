"""An HTTP/1.1 client for probes, the admin interface of Envoy, and the broker."""

import asyncio
import sys
from collections.abc import Iterable, Mapping
from typing import cast

import httptools

_HEAD_BYTES = 64 * 1024
_DELIMITED = {b"content-length", b"transfer-encoding"}


class Answer:
    """
    A response that the parser fills in; header names are in lower case.

    Attributes:
        complete: The whole response has arrived.
        lasting: The connection may carry another request; no byte of a further response has arrived.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = bytearray()
        self.complete = self.lasting = False
        self._received_bytes = 0
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """
        Parse received bytes; no bytes mean the end of the connection.

        Raises:
            ConnectionError: The bytes are not HTTP, or the response ends too early.
        """
        if data:
            self._received_bytes += len(data)
            try:
                self._parser.feed_data(data)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
                if not self.complete:
                    raise ConnectionError("the answer is not HTTP/1.1") from error
                self.lasting = False
            # A body in chunks of a few bytes is as much framing as data; more of it is no honest answer.
            if self._received_bytes - 2 * len(self.body) > _HEAD_BYTES:
                raise ConnectionError(f"the answer's headers are longer than {_HEAD_BYTES} bytes")
        elif self.status >= 200 and not any(name in _DELIMITED for name, _ in self.headers):
            self.complete = True  # without a length, the answer ends with the connection
        else:
            raise ConnectionError("the connection ended before the answer did")

    def on_message_begin(self) -> None:
        """Called by the parser, once for an informational response and once for the final one."""
        if self.complete:
            # The error stops the parser: a second response must not replace the first.
            raise ConnectionError("a second answer arrived for one request")
        self.headers.clear()

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


class Connection(asyncio.Protocol):
    """
    A connection, for one request after the other.

    Invariant: `_waiting` is pending exactly while a request is on its way.
    """

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._answer, self._limit_bytes = Answer(), 0

    @property
    def is_reusable(self) -> bool:
        """Whether another request may be sent: the connection is open and its last response is complete."""
        return self._answer.complete and self._answer.lasting and not self._is_closed()

    async def exchange(self, request: bytes, answer: Answer, *, limit_bytes: int = sys.maxsize) -> None:
        """
        Send *request* and receive *answer*; then the connection is reusable, or closed.

        Raises:
            OSError: The connection ended too early, the response is not HTTP, or its body exceeds *limit_bytes*.
        """
        if self._transport is None or self._is_closed():
            raise ConnectionError("the connection is closed")
        self._answer, self._limit_bytes = answer, limit_bytes
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            await self._waiting
        finally:
            self._waiting = None
            if not self.is_reusable:
                self.close()

    def close(self) -> None:
        """Close the connection, also with a request in flight."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Called by the transport."""
        if self._waiting is None or self._waiting.done():
            # No request is in flight: the next response could not be told from these bytes.
            self.close()
        else:
            self._feed(self._waiting, data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the transport."""
        self._transport = None
        if self._waiting is None or self._waiting.done():
            return
        if exc is None:
            self._feed(self._waiting, b"")
        else:
            self._waiting.set_exception(ConnectionError(f"the connection broke: {exc!r}"))

    def _feed(self, waiting: "asyncio.Future[None]", data: bytes) -> None:
        try:
            self._answer.feed(data)
            if len(self._answer.body) > self._limit_bytes:
                raise ConnectionError(f"the answer is longer than {self._limit_bytes} bytes")
        except ConnectionError as error:
            waiting.set_exception(error)
        else:
            if self._answer.complete:
                waiting.set_result(None)

    def _is_closed(self) -> bool:
        return self._transport is None or self._transport.is_closing()


async def get(
    path: str, *, port: int | None = None, socket: str | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    """
    GET *path* on a new connection to a loopback port or a Unix socket.

    Returns:
        Status and body.

    Raises:
        OSError: The port is closed, or the response is not HTTP. The caller sets the time limit.
    """
    loop, answer = asyncio.get_running_loop(), Answer()
    fields = {"Host": "localhost", **(headers or {}), "Connection": "close"}
    if port is not None:
        _, connection = await loop.create_connection(Connection, "127.0.0.1", port)
    else:
        _, connection = await loop.create_unix_connection(Connection, socket)
    try:
        await connection.exchange(compose("GET", path, fields.items()), answer)
    finally:
        connection.close()
    return answer.status, bytes(answer.body)


def compose(method: str, target: str, fields: Iterable[tuple[str, str]]) -> bytes:
    """Return the head of a request; *fields* may hold a name several times."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields), "", ""]
    return "\r\n".join(lines).encode("latin-1")
