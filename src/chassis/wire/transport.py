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
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Protocol

import httpx

from chassis.wire.headers import RawHeaders
from chassis.wire.http_connection import Answer, HttpConnection

# The longest answer between the functions, 256 histories of 1000 ids at their longest, has 33 MB.
MAX_ANSWER_BYTES = 64 * 1024 * 1024
_CONNECT_TIMEOUT_S = 1.0

SecondsFor = Callable[[str], float | None]


class Poster(Protocol):
    """Carries whole POST requests."""

    async def post(self, url: httpx.URL, headers: RawHeaders, body: bytes, *, timeout_s: float) -> Answer:
        """
        Post *body* to *url* with *headers* and its length, and return the answer.

        *timeout_s* covers the wait for a connection, connecting, and the answer together.

        Raises:
            httpx.TransportError: see the module's table.
        """
        ...


@dataclass(frozen=True)
class _PoolSettings:
    """The arguments of `HttptoolsTransport`, which each of its origins follows."""

    max_connections: int
    max_age_s: float
    max_answer_bytes: int
    tls: ssl.SSLContext | None
    socket: str | None
    repeats: bool

    @cached_property
    def context(self) -> ssl.SSLContext:
        return self.tls or ssl.create_default_context()


class _Origin:
    """The connections to one scheme, host and port: the idle ones, newest last, and a limit on all of them."""

    def __init__(self, url: httpx.URL, settings: _PoolSettings) -> None:
        secure = url.scheme == "https"
        self._host = url.host
        # Names below localhost are this machine (RFC 6761, section 6.3), and not every resolver knows that.
        self._address = "127.0.0.1" if url.host.endswith(".localhost") else url.host
        self._port = url.port or (443 if secure else 80)
        self._tls = settings.context if secure else None
        self._settings = settings
        self.idle: deque[HttpConnection] = deque()
        self._slots = asyncio.Semaphore(settings.max_connections)
        self._make = partial(HttpConnection, max_answer_bytes=settings.max_answer_bytes, on_lost=self._forget)
        self._closed = False

    async def exchange(self, message: bytes, seconds_for: SecondsFor) -> Answer:
        """Send *message* over a connection; *seconds_for* returns the timeouts of `pool`, `connect` and `read`."""
        if self._slots.locked():
            await self._await_slot(seconds_for("pool"))
        else:
            await self._slots.acquire()
        try:
            # The newest connection is used first, so that the server closes those that are no longer needed.
            while self.idle:
                kept = self.idle.pop()
                try:
                    return await self._exchange_on(kept, message, seconds_for)
                except (httpx.ReadError, httpx.RemoteProtocolError):
                    # The server may have closed the connection while it was idle, before it read the request.
                    if not (self._settings.repeats and kept.is_silent):
                        raise
            return await self._exchange_on(await self._connect(seconds_for("connect")), message, seconds_for)
        finally:
            self._slots.release()

    async def _exchange_on(self, connection: HttpConnection, message: bytes, seconds_for: SecondsFor) -> Answer:
        answer = await connection.exchange(message, seconds_for("read"))
        self._give_back(connection)
        return answer

    def _forget(self, connection: HttpConnection) -> None:
        if connection in self.idle:
            self.idle.remove(connection)

    def close(self) -> None:
        self._closed = True
        while self.idle:
            self.idle.pop().close()

    def _give_back(self, connection: HttpConnection) -> None:
        # Connections of bounded age make the client look up the name again and find a service that has moved.
        old = time.monotonic() - connection.born > self._settings.max_age_s
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

    async def _connect(self, timeout_s: float | None) -> HttpConnection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s if timeout_s is not None else _CONNECT_TIMEOUT_S):
                if self._settings.socket:
                    _, connection = await loop.create_unix_connection(self._make, self._settings.socket)
                else:
                    name = self._host if self._tls else None
                    _, connection = await loop.create_connection(
                        self._make, self._address, self._port, ssl=self._tls, server_hostname=name
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
        self._settings = _PoolSettings(max_connections, max_age_s, max_answer_bytes, tls, socket, repeats)
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

    async def post(self, url: httpx.URL, headers: RawHeaders, body: bytes, *, timeout_s: float) -> Answer:
        """Post *body*; see `Poster`."""
        return await self.send(
            b"POST", url, [*headers, (b"content-length", b"%d" % len(body))], body, timeout_s=timeout_s
        )

    async def send(
        self, method: bytes, url: httpx.URL, headers: RawHeaders, body: bytes, *, timeout_s: float
    ) -> Answer:
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
            origin = self._origins[key] = _Origin(url, self._settings)
        return origin


class _HttpxPoster:
    """A `Poster` over any httpx transport."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def post(self, url: httpx.URL, headers: RawHeaders, body: bytes, *, timeout_s: float) -> Answer:
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"), timeout_s)
        request = httpx.Request("POST", url, headers=headers, content=body, extensions={"timeout": timeouts})
        response = await self._transport.handle_async_request(request)
        try:
            content = await response.aread()
        finally:
            await response.aclose()
        return Answer(response.status_code, [(name.lower(), value) for name, value in response.headers.raw], content)


async def get(url: httpx.URL, *, headers: RawHeaders = (), socket: str | None = None, timeout_s: float) -> Answer:
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


def _serialise(method: bytes, url: httpx.URL, headers: RawHeaders, body: bytes) -> bytes:
    lines = [b"%b %b HTTP/1.1" % (method, url.raw_path)]
    lines += [b"%b: %b" % header for header in headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body
