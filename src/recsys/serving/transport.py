"""
An HTTP/1.1 transport for httpx on asyncio protocols and the httptools parser.

httpx's own transport spends two to three milliseconds of CPU on a request, this one about a tenth of a millisecond
(docs/adr/0004-hop-client.md). It does what a hop between functions needs and no more: whole bodies, keep-alive, TLS,
timeouts, a bounded pool. No HTTP/2, proxies, redirects or streaming.

Errors are httpx's own, so callers need not know which transport they use:

    ConnectError, ConnectTimeout   no connection, nothing was sent
    PoolTimeout                    every connection stayed busy
    ReadTimeout                    sent, no whole answer in time
    ReadError                      sent, the connection broke
    RemoteProtocolError            the other side closed without an answer, or answered with something else
"""

import asyncio
import ssl
import time
from collections import deque
from typing import Any, cast

import httptools
import httpx

_CONNECT_TIMEOUT_S = 1.0


class _Connection(asyncio.Protocol):
    """
    One connection: writes a request, parses its answer.

    Invariant: `_answer` is pending exactly while a request is on its way; `reusable` only between requests.
    """

    def __init__(self, origin: "_Origin") -> None:
        self._origin = origin
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._answer: asyncio.Future[httpx.Response] | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._chunks: list[bytes] = []
        self.born = time.monotonic()
        self.reusable = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.reusable = True

    async def exchange(self, message: bytes) -> httpx.Response:
        """Send *message*, return the whole answer."""
        if self._transport is None or self._transport.is_closing():
            raise httpx.RemoteProtocolError("the connection was closed while idle")
        self.reusable = False
        self._answer = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(message)
        try:
            return await self._answer
        except BaseException:
            # An unanswered request leaves the connection in an unknown state.
            self.close()
            raise
        finally:
            self._answer = None

    def close(self) -> None:
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._answered():
            # Bytes nobody asked for: whatever they are, the next answer could not be told from them.
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(httpx.RemoteProtocolError(f"not an HTTP answer: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._origin.forget(self)
        if exc is not None:
            self._fail(httpx.ReadError(f"the connection broke: {exc}"))
        else:
            self._fail(httpx.RemoteProtocolError("the server closed the connection without an answer"))

    def on_message_begin(self) -> None:
        self._headers, self._chunks = [], []
        if self._answered():
            # A second answer to one request: the next request could be given it.
            self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200 or self._answer is None or self._answer.done():
            return  # an interim answer, or one too many
        self.reusable = self._parser.should_keep_alive()
        self._answer.set_result(httpx.Response(status, headers=self._headers, content=b"".join(self._chunks)))

    def _answered(self) -> bool:
        return self._answer is None or self._answer.done()

    def _fail(self, error: httpx.TransportError) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


class _Origin:
    """The connections to one scheme, host and port: idle ones newest last, and a limit on all of them."""

    def __init__(self, url: httpx.URL, *, limit: int, max_age_s: float, tls: ssl.SSLContext | None) -> None:
        self._host = url.host
        self._port = url.port or (443 if url.scheme == "https" else 80)
        self._tls = tls if url.scheme == "https" else None
        self._idle: deque[_Connection] = deque()
        self._slots = asyncio.Semaphore(limit)
        self._max_age_s = max_age_s
        self._closed = False

    async def exchange(self, message: bytes, timeouts: dict[str, float | None]) -> httpx.Response:
        try:
            async with asyncio.timeout(timeouts.get("pool")):
                await self._slots.acquire()
        except TimeoutError as error:
            raise httpx.PoolTimeout("every connection stayed busy") from error
        try:
            connection = self._take() or await self._connect(timeouts.get("connect"))
            try:
                async with asyncio.timeout(timeouts.get("read")):
                    response = await connection.exchange(message)
            except TimeoutError as error:
                raise httpx.ReadTimeout("no answer in time") from error
            self._give_back(connection)
            return response
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
        tls: For https origins; the system's default trust otherwise.

    Cost: about 100 us of CPU a request.
    """

    def __init__(
        self, *, max_connections: int = 256, max_age_s: float = 300.0, tls: ssl.SSLContext | None = None
    ) -> None:
        self._max_connections = max_connections
        self._max_age_s = max_age_s
        self._tls = tls
        self._origins: dict[tuple[str, str, int | None], _Origin] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """
        Send *request* and return its whole answer.

        Raises:
            httpx.TransportError: see the module's table.
        """
        body = await request.aread()
        response = await self._origin(request.url).exchange(
            _serialise(request, body), request.extensions.get("timeout", {})
        )
        response.request = request
        return response

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
            origin = _Origin(url, limit=self._max_connections, max_age_s=self._max_age_s, tls=self._tls)
            self._origins[key] = origin
        return origin


def _serialise(request: httpx.Request, body: bytes) -> bytes:
    lines = [b"%b %b HTTP/1.1" % (request.method.encode(), request.url.raw_path)]
    lines += [b"%b: %b" % header for header in request.headers.raw]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body
