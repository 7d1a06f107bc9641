"""
The activator: holds requests for a revision that scaled to zero, and forwards them once an instance is ready.

While such a revision has no ready instance, Envoy sends its requests to a port of the activator. The activator does not
parse HTTP: it keeps the bytes of a connection, connects to an instance once there is one, and passes bytes both ways.
Streams, upgrades and HTTP/2 pass the same way.
"""

import asyncio
import json
import socket
import time
from collections.abc import Callable, Collection, Sequence
from typing import Final, cast

from chassis.server.load import Load

_BACKLOG: Final = 4096
_LINGER_S: Final = 5.0
"""How long a refused caller may take to finish its request."""
_MOST_EARLY_BYTES: Final = 65_536
"""Bytes that a held request may send; the activator stops reading beyond."""


class _Side(asyncio.Protocol):
    """One end of a forwarded connection: writes to the other end what it reads."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.other: _Side | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.other.transport.close()


class _InstanceSide(_Side):
    """The end at the instance; calls *answered* at the first bytes of the answer."""

    def __init__(self, answered: Callable[[], None]) -> None:
        super().__init__()
        self._answered: Callable[[], None] | None = answered

    def data_received(self, data: bytes) -> None:
        if self._answered is not None:
            self._answered()
            self._answered = None
        super().data_received(data)


class _Held(_Side):
    """The end at Envoy: a request that waits for an instance, or is being answered by one."""

    def __init__(self, door: "Door") -> None:
        super().__init__()
        self._door = door
        self._early = bytearray()
        self._refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._door.arrive(self)

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            super().data_received(data)
            return
        if self._refused:
            return
        self._early += data
        if len(self._early) > _MOST_EARLY_BYTES:
            self.transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._door.leave(self)

    def join(self, instance: _Side) -> None:
        """Pass on what has arrived, and from now on everything else."""
        if self.transport.is_closing():
            instance.transport.close()
            return
        self.other, instance.other = instance, self
        instance.transport.write(bytes(self._early))
        self._early.clear()
        self.transport.resume_reading()

    def refuse(self, answer: bytes) -> None:
        """Send *answer*, if there is one, and end the connection."""
        self._refused = True
        if not answer:
            self.transport.close()
            return
        self.transport.write(answer)
        # With unread bytes of the request, closing now would reset the connection and lose the answer.
        self.transport.write_eof()
        self.transport.resume_reading()
        asyncio.get_running_loop().call_later(_LINGER_S, self.transport.close)


class Door:
    """
    The entrance of one revision: the requests that wait for it, and those forwarded to its instances.

    Args:
        http2: Whether the revision speaks HTTP/2, in which the activator cannot answer itself.
        queue_limit: Requests that may wait; further ones are refused.
        woken: Called when the first request begins to wait.
        clock: Measures the cold start.

    Attributes:
        port: The loopback port that Envoy connects to.
        cold_start_s: Seconds from the first waiting request of the last cold start to the first answer.
    """

    def __init__(
        self, *, http2: bool, queue_limit: int, woken: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        # It listens from the start, so that Envoy can have the port before the event loop accepts connections.
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        self.port: int = self._listener.getsockname()[1]
        self.cold_start_s: float | None = None
        self._http2, self._queue_limit, self._woken, self._clock = http2, queue_limit, woken, clock
        self._load = Load(clock)
        self._announced = 0
        self._cold_since: float | None = None
        self._waiting: dict[_Held, None] = {}
        self._forwarded: dict[_Held, int] = {}
        self._instances: Sequence[int] = ()
        self._quiet = asyncio.Event()
        self._forwarding: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Accept connections until cancelled, then close all of them."""
        server = await asyncio.get_running_loop().create_server(
            lambda: _Held(self), sock=self._listener, backlog=_BACKLOG
        )
        try:
            await asyncio.Event().wait()
        finally:
            server.close()
            for held in [*self._waiting, *self._forwarded]:
                held.transport.abort()

    @property
    def waiting(self) -> int:
        """Number of requests that wait for an instance."""
        return len(self._waiting)

    def report(self, *, seen: float = 0.0) -> float:
        """
        Return the average number of waiting requests since the last call, less those already announced.

        Args:
            seen: The average according to Envoy, which is larger if requests also wait in its queue.
        """
        average, _ = self._load.report()
        announced, self._announced = self._announced, 0
        return max(0.0, max(average, seen) - announced)

    def forwarded(self, port: int) -> int:
        """Return the number of requests that the instance on *port* got from here and has not finished."""
        return sum(instance == port for instance in self._forwarded.values())

    async def finished(self, port: int) -> None:
        """Return once the instance on *port* has finished the requests that it got from here."""
        while self.forwarded(port):
            self._quiet.clear()
            await self._quiet.wait()

    def arrive(self, held: _Held) -> None:
        """Let a request wait, or forward it if an instance is ready."""
        if len(self._waiting) >= self._queue_limit:
            held.refuse(self._problem("the queue of the activator is full"))
            return
        first = not self._waiting
        self._waiting[held] = None
        self._load.arrive()
        if self._instances:
            self._forward(held)
        elif first:
            self._announced += 1
            self._cold_since = self._clock()
            self._woken()

    def leave(self, held: _Held) -> None:
        """Forget a request that was answered, or whose caller disconnected."""
        self._forwarded.pop(held, None)
        self._quiet.set()
        if held in self._waiting:
            del self._waiting[held]
            self._load.leave()

    def open(self, instances: Collection[int]) -> None:
        """Forward waiting requests to the instances on these ports, and new requests while there is an instance."""
        self._instances = tuple(instances)
        if self._instances:
            for held in list(self._waiting):
                self._forward(held)

    def refuse(self, reason: str) -> None:
        """Answer all waiting requests with 503 and *reason*."""
        answer = self._problem(reason)
        for held in list(self._waiting):
            self.leave(held)
            held.refuse(answer)

    def _forward(self, held: _Held) -> None:
        port = min(self._instances, key=self.forwarded)
        del self._waiting[held]
        self._load.leave()
        self._forwarded[held] = port
        task = asyncio.get_running_loop().create_task(self._connect(held, port))
        self._forwarding.add(task)
        task.add_done_callback(self._forwarding.discard)

    async def _connect(self, held: _Held, port: int) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, side = await loop.create_connection(lambda: _InstanceSide(self._answered), "127.0.0.1", port)
        except OSError:
            # The instance ended just now. The request has not reached it, so it can wait for another one.
            if self._forwarded.pop(held, None):
                self._waiting[held] = None
                self._load.arrive()
            return
        held.join(side)

    def _answered(self) -> None:
        if self._cold_since is not None:
            self.cold_start_s = self._clock() - self._cold_since
            self._cold_since = None

    def _problem(self, detail: str) -> bytes:
        if self._http2:
            return b""  # Envoy answers 503 itself.
        document = {"type": "about:blank", "title": "Service Unavailable", "status": 503, "detail": detail}
        body = json.dumps(document).encode()
        head = (
            "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n"
            f"retry-after: 1\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body
