"""One HTTP/1.1 connection of a client: requests out, whole answers in, parsed by httptools."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import httptools
import httpx

from chassis.wire.headers import RawHeaders

_LATE = "no answer in time"
# An answer without either of these headers ends when the server closes the connection.
_FRAMINGS = frozenset({b"content-length", b"transfer-encoding"})


class Answer(NamedTuple):
    """A whole answer. Header names are in lower case."""

    status: int
    headers: RawHeaders
    body: bytes

    def header(self, name: bytes) -> str:
        """Return the values of the header *name* (lower case), joined by commas; empty without the header."""
        return ", ".join(value.decode("latin-1") for key, value in self.headers if key == name)


class HttpConnection(asyncio.Protocol):
    """
    Writes one request at a time, and parses its answer.

    Args:
        max_answer_bytes: The longest answer accepted, its head included.
        on_lost: Called when the connection has ended.

    Attributes:
        born: Time of the start, by the monotonic clock.
        reusable: Whether the connection may carry another request.

    Invariant: `_answer` is pending exactly while a request is in flight, and `reusable` is true only between requests.
    """

    def __init__(self, *, max_answer_bytes: int, on_lost: "Callable[[HttpConnection], None]") -> None:
        self._max_answer_bytes = max_answer_bytes
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._answer: asyncio.Future[Answer] | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._head: list[tuple[bytes, bytes]] = []
        self._head_complete = False
        self._chunks: list[bytes] = []
        self._came = 0
        self.born = time.monotonic()
        self.reusable = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept requests from now on."""
        self._transport = cast("asyncio.Transport", transport)
        self.reusable = True

    async def exchange(self, message: bytes, timeout_s: float | None) -> Answer:
        """Send *message* and return the whole answer."""
        if self._transport is None or self._transport.is_closing():
            raise httpx.RemoteProtocolError("the connection was closed while idle")
        self.reusable = False
        loop = asyncio.get_running_loop()
        self._answer = loop.create_future()
        self._head_complete = False
        self._came = 0
        self._parser = httptools.HttpResponseParser(self)
        # A timer that fails the answer costs a third of what asyncio.timeout costs.
        timer = None if timeout_s is None else loop.call_later(timeout_s, self._fail, httpx.ReadTimeout(_LATE))
        self._transport.write(message)
        try:
            return await self._answer
        except BaseException:
            # An unanswered request leaves the connection in an unknown state.
            self.close()
            raise
        finally:
            self._answer = None
            if timer is not None:
                timer.cancel()

    @property
    def is_silent(self) -> bool:
        """Whether no byte of the current answer has arrived."""
        return self._came == 0

    def close(self) -> None:
        """End the connection immediately."""
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse *data*, or end a connection whose server sends more than it was asked for."""
        if self._answered():
            # The server sent bytes without a request. The next answer could not be told apart from them.
            self.close()
            return
        # The head, trailers and interim answers count, so that none of them can fill the memory.
        self._came += len(data)
        if self._came > self._max_answer_bytes:
            self._fail(httpx.RemoteProtocolError(f"the answer exceeds {self._max_answer_bytes} bytes"))
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            # The answer may be complete already, with other bytes behind it.
            self.reusable = False
            self._fail(httpx.RemoteProtocolError(f"not an HTTP answer: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """End or fail the answer that is being received."""
        self.reusable = False
        self._on_lost(self)
        if exc is not None:
            self._fail(httpx.ReadError(f"the connection broke: {exc}"))
        elif not self._end_at_close():
            self._fail(httpx.RemoteProtocolError("the server closed the connection without an answer"))

    def on_message_begin(self) -> None:
        """Prepare for the next answer."""
        self._headers, self._chunks, self._head_complete = [], [], False
        if self._answered():
            # The server sent a second answer to one request. The next request must not receive it.
            self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header or a trailer."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """End the head."""
        # The parser reports trailers as headers. They go into another list, which is dropped (RFC 9110, section 6.5.1).
        self._head, self._headers, self._head_complete = self._headers, [], True

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        """Hand over the answer."""
        status = self._parser.get_status_code()
        if status < 200 or self._answer is None or self._answer.done():
            return  # an interim answer, or a second answer
        self.reusable = self._parser.should_keep_alive()
        self._answer.set_result(Answer(status, self._head, b"".join(self._chunks)))

    def _end_at_close(self) -> bool:
        """End an answer that has neither a length nor chunks (RFC 9112, section 6.3); tell whether it is one."""
        if self._answer is None or self._answer.done() or not self._head_complete:
            return False
        status = self._parser.get_status_code()
        if status < 200 or any(name in _FRAMINGS for name, _ in self._head):
            return False
        self._answer.set_result(Answer(status, self._head, b"".join(self._chunks)))
        return True

    def _answered(self) -> bool:
        return self._answer is None or self._answer.done()

    def _fail(self, error: httpx.TransportError) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
