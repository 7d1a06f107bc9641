"""
Read the metrics of all instances with few wake-ups.

Every wake-up of an idle process costs as much as reading one exposition. asyncio wakes the process for each part of each
answer. A scraper wakes it once: it sends all requests, sleeps until most instances have answered, and reads what has
arrived in one turn of the event loop. Only then does it wait for the slower instances.
"""

import asyncio
import socket
import time

import httpx

from chassis.wire.http_connection import HttpConnection

_MAX_BYTES = 8 * 2**20
_PART_BYTES = 65_536
_UNUSED_S = 10.0


class Scraper:
    """
    Reads expositions at loopback ports; keeps a connection to each port.

    Args:
        settle_s: Seconds from a request to the first look for its answer.
        timeout_s: The longest wait for a connection, and for an answer.
    """

    def __init__(self, *, settle_s: float = 0.05, timeout_s: float = 1.0) -> None:
        self._settle_s, self._timeout_s = settle_s, timeout_s
        self._idle: dict[int, tuple[HttpConnection, float]] = {}

    async def read(self, port: int) -> str:
        """
        Return the exposition at *port*.

        Raises:
            httpx.HTTPError: the port does not answer, or not with an exposition.
            ValueError: the answer is not UTF-8.
        """
        kept = self._idle.pop(port, None)
        connection = kept[0] if kept else await self._connect(port)
        request = b"GET /metrics HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n\r\n" % port
        answer = await connection.exchange(request, self._timeout_s)
        if connection.reusable:
            self._idle[port] = connection, time.monotonic()
        else:
            connection.close()
        if answer.status != 200:
            raise httpx.RemoteProtocolError(f"port {port} answered {answer.status} to a request for metrics")
        return answer.body.decode()

    def close(self) -> None:
        """Close the connections."""
        self._close_unused(0.0)

    def _close_unused(self, seconds: float) -> None:
        now = time.monotonic()
        for port in [each for each, (_, used) in self._idle.items() if now - used >= seconds]:
            self._idle.pop(port)[0].close()

    async def _connect(self, port: int) -> HttpConnection:
        # An instance that ended leaves a connection that nothing reads. Each new instance is an occasion to close those.
        self._close_unused(_UNUSED_S)
        connected = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            async with asyncio.timeout(self._timeout_s):
                await asyncio.get_running_loop().sock_connect(connected, ("127.0.0.1", port))
        except OSError as error:
            connected.close()
            raise httpx.ConnectError(f"port {port} cannot be reached: {error}") from error
        connection = HttpConnection(max_answer_bytes=_MAX_BYTES, on_lost=lambda _: None)
        connection.connection_made(_SettlingTransport(connected, connection, settle_s=self._settle_s))
        return connection


class _SettlingTransport(asyncio.Transport):
    """A connected socket, read only a while after each message. It then waits for data until the answer is complete."""

    def __init__(self, connected: socket.socket, connection: HttpConnection, *, settle_s: float) -> None:
        super().__init__()
        self._socket, self._connection, self._settle_s = connected, connection, settle_s
        self._loop = asyncio.get_running_loop()
        self._is_watched = self._is_closed = False

    def write(self, data: "bytes | bytearray | memoryview") -> None:
        """Send *data*, which is shorter than the buffer of the socket, and look for the answer later."""
        try:
            self._socket.send(data)
        except OSError as error:
            self._end(error)
        else:
            self._loop.call_later(self._settle_s, self._receive)

    def is_closing(self) -> bool:
        """Return whether the socket is closed."""
        return self._is_closed

    def abort(self) -> None:
        """Close the socket."""
        self._watch(wanted=False)
        self._is_closed = True
        self._socket.close()

    def _receive(self) -> None:
        if self._is_closed:
            return
        try:
            data = self._socket.recv(_PART_BYTES)
        except BlockingIOError:
            self._watch(wanted=True)
        except OSError as error:
            self._end(error)
        else:
            if data:
                self._connection.data_received(data)
                self._watch(wanted=not self._connection.reusable and not self._is_closed)
            else:
                self._end(None)

    def _watch(self, *, wanted: bool) -> None:
        if wanted and not self._is_watched:
            self._loop.add_reader(self._socket, self._receive)
        elif self._is_watched and not wanted:
            self._loop.remove_reader(self._socket)
        self._is_watched = wanted

    def _end(self, error: OSError | None) -> None:
        self.abort()
        self._connection.connection_lost(error)
