"""
An HTTP/1.1 transport for httpx on asyncio protocols and the httptools parser.

This transport costs a small fraction of the CPU of httpx's transport (docs/adr/0004-hop-client.md). It supports only
what a call between functions needs: whole bodies, keep-alive, TLS, timeouts, a bounded pool. It has no HTTP/2, proxies,
redirects or streaming.

httpx's request and response objects cost a third of the rest, so the hop client uses `Poster`: the same exchange in
plain values. `as_poster` makes a `Poster` of any httpx transport.

The errors are httpx's, so callers need not know which transport they use:

    ConnectError, ConnectTimeout   no connection, nothing was sent
    PoolTimeout                    every connection stayed busy
    ReadTimeout                    the request was sent, the answer was not complete in time
    ReadError                      the request was sent, the connection broke
    RemoteProtocolError            the server closed the connection without an answer, or its answer is not HTTP or
                                   longer than `max_answer_bytes`
"""

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple, Protocol, cast

import httptools
import httpx

# The longest answer between the functions, 256 histories of 1000 ids at their longest, has 33 MB.
MAX_ANSWER_BYTES = 64 * 1024 * 1024
_CONNECT_TIMEOUT_S = 1.0
_LATE = "no answer in time"
# An answer without either of these headers ends when the server closes the connection.
_FRAMINGS = frozenset({b"content-length", b"transfer-encoding"})

Headers = Sequence[tuple[bytes, bytes]]
SecondsFor = Callable[[str], float | None]


class Answer(NamedTuple):
    """A whole answer. Header names are in lower case."""

    status: int
    headers: Headers
    body: bytes

    def header(self, name: bytes) -> str:
        """Return the values of the header *name* (lower case), joined by commas; empty without the header."""
        return ", ".join(value.decode("latin-1") for key, value in self.headers if key == name)


class Poster(Protocol):
    """Carries whole POST requests."""

    async def post(self, url: httpx.URL, headers: Headers, body: bytes, *, timeout_s: float) -> Answer:
        """
        Post *body* to *url* with *headers* and its length, and return the answer.

        *timeout_s* covers the wait for a connection, connecting, and the answer together.

        Raises:
            httpx.TransportError: see the module's table.
        """
        ...


class _Connection(asyncio.Protocol):
    """
    One connection: writes a request, parses its answer.

    Invariant: `_answer` is pending exactly while a request is in flight, and `reusable` is true only between requests.
    """

    def __init__(self, origin: "_Origin") -> None:
        self._origin = origin
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
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._answered():
            # The server sent bytes without a request. The next answer could not be told apart from them.
            self.close()
            return
        # The head, trailers and interim answers count, so that none of them can fill the memory.
        self._came += len(data)
        if self._came > self._origin.max_answer_bytes:
            self._fail(httpx.RemoteProtocolError(f"the answer exceeds {self._origin.max_answer_bytes} bytes"))
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            # The answer may be complete already, with other bytes behind it.
            self.reusable = False
            self._fail(httpx.RemoteProtocolError(f"not an HTTP answer: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._origin.forget(self)
        if exc is not None:
            self._fail(httpx.ReadError(f"the connection broke: {exc}"))
        elif not self._end_at_close():
            self._fail(httpx.RemoteProtocolError("the server closed the connection without an answer"))

    def on_message_begin(self) -> None:
        self._headers, self._chunks, self._head_complete = [], [], False
        if self._answered():
            # The server sent a second answer to one request. The next request must not receive it.
            self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        # The parser reports trailers as headers. They go into another list, which is dropped (RFC 9110, section 6.5.1).
        self._head, self._headers, self._head_complete = self._headers, [], True

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)

    def on_message_complete(self) -> None:
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


class _Origin:
    """The connections to one scheme, host and port: the idle ones, newest last, and a limit on all of them."""

    def __init__(
        self,
        url: httpx.URL,
        *,
        limit: int,
        max_age_s: float,
        max_answer_bytes: int,
        tls: ssl.SSLContext | None,
        socket: str | None,
        repeats: bool,
    ) -> None:
        self._host = url.host
        self._socket = socket
        self._repeats = repeats
        self._port = url.port or (443 if url.scheme == "https" else 80)
        self._tls = tls if url.scheme == "https" else None
        self.idle: deque[_Connection] = deque()
        self._slots = asyncio.Semaphore(limit)
        self._max_age_s = max_age_s
        self.max_answer_bytes = max_answer_bytes
        self._closed = False

    async def exchange(self, message: bytes, seconds_for: SecondsFor) -> Answer:
        """Send *message* over a connection; *seconds_for* returns the timeouts of `pool`, `connect` and `read`."""
        if self._slots.locked():
            await self._await_slot(seconds_for("pool"))
        else:
            await self._slots.acquire()
        try:
            while kept := self._take():
                try:
                    return await self._exchange_on(kept, message, seconds_for)
                except (httpx.ReadError, httpx.RemoteProtocolError):
                    # The server may have closed the connection while it was idle, before it read the request.
                    if not (self._repeats and kept.is_silent):
                        raise
            return await self._exchange_on(await self._connect(seconds_for("connect")), message, seconds_for)
        finally:
            self._slots.release()

    async def _exchange_on(self, connection: _Connection, message: bytes, seconds_for: SecondsFor) -> Answer:
        answer = await connection.exchange(message, seconds_for("read"))
        self._give_back(connection)
        return answer

    def forget(self, connection: _Connection) -> None:
        connection.reusable = False
        if connection in self.idle:
            self.idle.remove(connection)

    def close(self) -> None:
        self._closed = True
        while self.idle:
            self.idle.pop().close()

    def _take(self) -> _Connection | None:
        # The newest connection is used first, so that the server closes those that are no longer needed.
        return self.idle.pop() if self.idle else None

    def _give_back(self, connection: _Connection) -> None:
        # Connections of bounded age make the client look up the name again and find a service that has moved.
        old = time.monotonic() - connection.born > self._max_age_s
        if connection.reusable and not old and not self._closed:
            self.idle.append(connection)
        else:
            connection.close()

    async def _await_slot(self, timeout_s: float | None) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._slots.acquire()
        except TimeoutError as error:
            raise httpx.PoolTimeout("every connection stayed busy") from error

    async def _connect(self, timeout_s: float | None) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s if timeout_s is not None else _CONNECT_TIMEOUT_S):
                if self._socket:
                    _, connection = await loop.create_unix_connection(lambda: _Connection(self), self._socket)
                else:
                    _, connection = await loop.create_connection(
                        lambda: _Connection(self), self._host, self._port, ssl=self._tls
                    )
        except TimeoutError as error:
            raise httpx.ConnectTimeout(f"{self._host}:{self._port} did not accept in time") from error
        except OSError as error:
            raise httpx.ConnectError(f"{self._host}:{self._port} cannot be reached: {error}") from error
        return connection


class HttptoolsTransport(httpx.AsyncBaseTransport):
    """
    Carries the requests of an `httpx.AsyncClient`, or requests that are handed to it directly.

    Args:
        max_connections: The limit for one origin. Further requests wait for `timeout["pool"]` seconds.
        max_age_s: The age from which a connection is not used again.
        max_answer_bytes: The longest answer accepted, its head included.
        tls: The context of https origins; the system's default trust if None.
        socket: The path of a Unix socket that all connections go to; None for TCP.
        repeats: Repeat a request on another connection if a kept one breaks before the first byte of the answer. The
            server may have received the request: set this only where a repeated request does no harm.
    """

    def __init__(
        self,
        *,
        max_connections: int = 256,
        max_age_s: float = 300.0,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
        tls: ssl.SSLContext | None = None,
        socket: str | None = None,
        repeats: bool = False,
    ) -> None:
        self._socket = socket
        self._repeats = repeats
        self._max_connections = max_connections
        self._max_age_s = max_age_s
        self._max_answer_bytes = max_answer_bytes
        self._tls = tls
        self._origins: dict[tuple[str, str, int | None], _Origin] = {}

    @property
    def idle(self) -> int:
        """The number of open connections that wait for a request."""
        return sum(len(origin.idle) for origin in self._origins.values())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """
        Send *request* and return its whole answer.

        Raises:
            httpx.TransportError: see the module's table.
        """
        body = await request.aread()
        timeouts: dict[str, float | None] = request.extensions.get("timeout", {})
        message = _serialise(request.method.encode(), request.url, request.headers.raw, body)
        answer = await self._origin(request.url).exchange(message, timeouts.get)
        return httpx.Response(answer.status, headers=answer.headers, content=answer.body, request=request)

    async def post(self, url: httpx.URL, headers: Headers, body: bytes, *, timeout_s: float) -> Answer:
        """Post *body*; see `Poster`."""
        return await self.send(
            b"POST", url, [*headers, (b"content-length", b"%d" % len(body))], body, timeout_s=timeout_s
        )

    async def send(self, method: bytes, url: httpx.URL, headers: Headers, body: bytes, *, timeout_s: float) -> Answer:
        """
        Send a request with exactly *headers* and return the answer; *timeout_s* as in `Poster`.

        Raises:
            httpx.TransportError: see the module's table.
        """
        message = _serialise(method, url, headers, body)
        ends = time.monotonic() + timeout_s
        return await self._origin(url).exchange(message, lambda _stage: max(0.0, ends - time.monotonic()))

    async def aclose(self) -> None:
        """Close the idle connections. Those in use close after their answer."""
        for origin in self._origins.values():
            origin.close()
        self._origins.clear()

    def _origin(self, url: httpx.URL) -> _Origin:
        key = (url.scheme, url.host, url.port)
        origin = self._origins.get(key)
        if origin is None:
            if url.scheme == "https" and self._tls is None:
                self._tls = ssl.create_default_context()
            origin = _Origin(
                url,
                limit=self._max_connections,
                max_age_s=self._max_age_s,
                max_answer_bytes=self._max_answer_bytes,
                tls=self._tls,
                socket=self._socket,
                repeats=self._repeats,
            )
            self._origins[key] = origin
        return origin


class _HttpxPoster:
    """A `Poster` over any httpx transport."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def post(self, url: httpx.URL, headers: Headers, body: bytes, *, timeout_s: float) -> Answer:
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"), timeout_s)
        request = httpx.Request("POST", url, headers=headers, content=body, extensions={"timeout": timeouts})
        response = await self._transport.handle_async_request(request)
        try:
            content = await response.aread()
        finally:
            await response.aclose()
        return Answer(response.status_code, [(name.lower(), value) for name, value in response.headers.raw], content)


async def get(url: httpx.URL, *, headers: Headers = (), socket: str | None = None, timeout_s: float) -> Answer:
    """
    GET *url* on a separate connection: TCP, or the Unix socket *socket*.

    Raises:
        httpx.TransportError: see the module's table.
    """
    fields = [*headers, (b"connection", b"close")]
    if not any(name.lower() == b"host" for name, _ in headers):
        fields.insert(0, (b"host", url.netloc))
    async with aclosing(HttptoolsTransport(socket=socket)) as transport:
        return await transport.send(b"GET", url, fields, b"", timeout_s=timeout_s)


def as_poster(transport: httpx.AsyncBaseTransport) -> Poster:
    """Return the cheapest `Poster` over *transport*."""
    return transport if isinstance(transport, HttptoolsTransport) else _HttpxPoster(transport)


def _serialise(method: bytes, url: httpx.URL, headers: Headers, body: bytes) -> bytes:
    lines = [b"%b %b HTTP/1.1" % (method, url.raw_path)]
    lines += [b"%b: %b" % header for header in headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body
