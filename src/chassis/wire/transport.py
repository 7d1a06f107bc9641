"""
An HTTP/1.1 transport for httpx on asyncio protocols and the httptools parser.

httpx's own transport spends two to three milliseconds of CPU on a request, this one about a tenth of a millisecond
(docs/adr/0004-hop-client.md). It does what a hop between functions needs and no more: whole bodies, keep-alive, TLS,
timeouts, a bounded pool. No HTTP/2, proxies, redirects or streaming.

httpx's request and response objects are a third of what is left, so hops use `Poster`: the same exchange in plain
values. Any other httpx transport is a `Poster` by way of `as_poster`.

Errors are httpx's own, so callers need not know which transport they use:

    ConnectError, ConnectTimeout   no connection, nothing was sent
    PoolTimeout                    every connection stayed busy
    ReadTimeout                    sent, no whole answer in time
    ReadError                      sent, the connection broke
    RemoteProtocolError            the other side closed without an answer, answered with something else, or with more
                                   than `max_answer_bytes`
"""

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, cast

import httptools
import httpx

# The longest answer between the functions, 256 histories of 1000 ids at their longest, has 33 MB.
MAX_ANSWER_BYTES = 64 * 1024 * 1024
_CONNECT_TIMEOUT_S = 1.0
_LATE = "no answer in time"
# An answer with neither of them ends with its connection.
_FRAMINGS = frozenset({b"content-length", b"transfer-encoding"})

Headers = Sequence[tuple[bytes, bytes]]
SecondsFor = Callable[[str], float | None]


class Answer(NamedTuple):
    """A whole answer; header names are in lower case."""

    status: int
    headers: Headers
    body: bytes

    def header(self, name: bytes) -> str:
        """Return the header *name* (lower case), several of them joined as HTTP has it, empty without one."""
        return ", ".join(value.decode("latin-1") for key, value in self.headers if key == name)


class Poster(Protocol):
    """Carries whole POST requests."""

    async def post(self, url: httpx.URL, headers: Headers, body: bytes, *, timeout_s: float) -> Answer:
        """
        Post *body* to *url* with *headers* and its length, and return the answer.

        *timeout_s* is for all of it: the wait for a connection, connecting, and the answer.

        Raises:
            httpx.TransportError: see the module's table.
        """
        ...


class _Connection(asyncio.Protocol):
    """
    One connection: writes a request, parses its answer.

    Invariant: `_answer` is pending exactly while a request is on its way; `reusable` only between requests.
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
        """Send *message*, return the whole answer."""
        if self._transport is None or self._transport.is_closing():
            raise httpx.RemoteProtocolError("the connection was closed while idle")
        self.reusable = False
        loop = asyncio.get_running_loop()
        self._answer = loop.create_future()
        self._head_complete = False
        self._came = 0
        self._parser = httptools.HttpResponseParser(self)
        # A timer that fails the answer costs a third of asyncio.timeout around it.
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

    def close(self) -> None:
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._answered():
            # Bytes nobody asked for: whatever they are, the next answer could not be told from them.
            self.close()
            return
        # The head, trailers and interim answers count, so that none of them can fill the memory.
        self._came += len(data)
        if self._came > self._origin.max_answer_bytes:
            self._fail(httpx.RemoteProtocolError(f"the answer exceeds {self._origin.max_answer_bytes} bytes"))
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(httpx.RemoteProtocolError(f"not an HTTP answer: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._origin.forget(self)
        if exc is not None:
            self._fail(httpx.ReadError(f"the connection broke: {exc}"))
        elif not self._deliver_what_came():
            self._fail(httpx.RemoteProtocolError("the server closed the connection without an answer"))

    def on_message_begin(self) -> None:
        self._headers, self._chunks, self._head_complete = [], [], False
        if self._answered():
            # A second answer to one request: the next request could be given it.
            self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        # Trailers come as headers do, and are none (RFC 9110, section 6.5.1): into a list that nobody reads.
        self._head, self._headers, self._head_complete = self._headers, [], True

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200 or self._answer is None or self._answer.done():
            return  # an interim answer, or one too many
        self.reusable = self._parser.should_keep_alive()
        self._answer.set_result(Answer(status, self._head, b"".join(self._chunks)))

    def _deliver_what_came(self) -> bool:
        """Let the answer end here if it has neither a length nor chunks (RFC 9112, section 6.3); tell whether it has."""
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
    """The connections to one scheme, host and port: idle ones newest last, and a limit on all of them."""

    def __init__(
        self, url: httpx.URL, *, limit: int, max_age_s: float, max_answer_bytes: int, tls: ssl.SSLContext | None
    ) -> None:
        self._host = url.host
        self._port = url.port or (443 if url.scheme == "https" else 80)
        self._tls = tls if url.scheme == "https" else None
        self._idle: deque[_Connection] = deque()
        self._slots = asyncio.Semaphore(limit)
        self._max_age_s = max_age_s
        self.max_answer_bytes = max_answer_bytes
        self._closed = False

    async def exchange(self, message: bytes, seconds_for: SecondsFor) -> Answer:
        """Send *message* over a connection; *seconds_for* tells what there is for `pool`, `connect`, `read`."""
        if self._slots.locked():
            await self._await_slot(seconds_for("pool"))
        else:
            await self._slots.acquire()
        try:
            connection = self._take() or await self._connect(seconds_for("connect"))
            answer = await connection.exchange(message, seconds_for("read"))
            self._give_back(connection)
            return answer
        finally:
            self._slots.release()

    def forget(self, connection: _Connection) -> None:
        connection.reusable = False
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> _Connection | None:
        # Newest first: the ones a lull made superfluous stay idle until the other side closes them.
        return self._idle.pop() if self._idle else None

    def _give_back(self, connection: _Connection) -> None:
        # A bounded age makes the name be looked up again, so that a moved service is found.
        old = time.monotonic() - connection.born > self._max_age_s
        if connection.reusable and not old and not self._closed:
            self._idle.append(connection)
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
    An `httpx.AsyncBaseTransport`; give it to an `httpx.AsyncClient` or hand it requests directly.

    Args:
        max_connections: To one origin, at most; further requests wait for `timeout["pool"]` seconds.
        max_age_s: After which a connection is not used again.
        max_answer_bytes: The longest answer accepted, its head included.
        tls: For https origins; the system's default trust otherwise.

    Cost: about 100 us of CPU a request, 60 by way of `post`.
    """

    def __init__(
        self,
        *,
        max_connections: int = 256,
        max_age_s: float = 300.0,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._max_connections = max_connections
        self._max_age_s = max_age_s
        self._max_answer_bytes = max_answer_bytes
        self._tls = tls
        self._origins: dict[tuple[str, str, int | None], _Origin] = {}

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
        message = _serialise(b"POST", url, [*headers, (b"content-length", b"%d" % len(body))], body)
        ends = time.monotonic() + timeout_s
        return await self._origin(url).exchange(message, lambda _stage: max(0.0, ends - time.monotonic()))

    async def aclose(self) -> None:
        """Close the idle connections; those in use close when their answer is there."""
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
            )
            self._origins[key] = origin
        return origin


class _Through:
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


def as_poster(transport: httpx.AsyncBaseTransport) -> Poster:
    """Return the cheapest way to post over *transport*."""
    return transport if isinstance(transport, HttptoolsTransport) else _Through(transport)


def _serialise(method: bytes, url: httpx.URL, headers: Headers, body: bytes) -> bytes:
    lines = [b"%b %b HTTP/1.1" % (method, url.raw_path)]
    lines += [b"%b: %b" % header for header in headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body
