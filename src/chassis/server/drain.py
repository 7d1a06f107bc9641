"""A uvicorn server that drains on SIGTERM without losing a request, and exits with status 0."""

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Iterator
from types import FrameType

import uvicorn

from chassis.server.idle_server import WakingServer
from chassis.server.service import Service
from chassis.server.settings import ServingSettings

_POLL_S = 0.02


class DrainingServer(WakingServer):
    """
    A uvicorn server that drains on SIGTERM.

    The drain takes these steps:

    1. `/readyz` answers 503, and every answer says `Connection: close`.
    2. The server accepts the connections in its accept queue, then closes the port.
    3. Idle connections may send a request for another `drain_linger_s` seconds.
    4. Requests in flight are finished.
    5. The service closes its parts.
    """

    def __init__(self, config: uvicorn.Config, service: Service, listener: socket.socket) -> None:
        super().__init__(config)
        self._service = service
        self._listener = listener
        self.exit_status = 0

    def fail(self) -> None:
        """End the server with a non-zero exit status."""
        self.exit_status = 1
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then close."""
        self._service.drain()
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        await self._close_port()
        await self._linger()
        await super().shutdown(sockets)

    async def _close_port(self) -> None:
        """Accept the connections in the port's queue, whose callers take them for open, and close the port."""
        loop = asyncio.get_running_loop()
        waiting = list(_accept_all(self._listener))
        for server in self.servers:
            server.close()
        for connection in waiting:
            connection.setblocking(False)
            await loop.connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    async def _linger(self) -> None:
        deadline = time.monotonic() + self._service.settings.drain_linger_s
        while self.server_state.connections and time.monotonic() < deadline:  # noqa: ASYNC110 - uvicorn has no event
            await asyncio.sleep(_POLL_S)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Exit on SIGTERM and SIGINT. uvicorn would raise them again at the end and so hide a clean exit."""
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.should_exit = True


def _accept_all(listener: socket.socket) -> Iterator[socket.socket]:
    """Yield the connections in the *listener*'s queue while there are descriptors for them."""
    while True:
        try:
            yield listener.accept()[0]
        except ConnectionAbortedError:
            continue  # The caller disconnected; other connections may wait behind it.
        except OSError:
            return  # The queue is empty, or no descriptor is left. The drain continues in both cases.


def listen(settings: ServingSettings) -> socket.socket:
    """
    Return a listening socket.

    Raises:
        OSError: the address is taken, or is not an address of this machine.
    """
    listener = socket.create_server((settings.host, settings.port), backlog=2048)
    listener.setblocking(False)
    return listener
