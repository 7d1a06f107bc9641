"""
Share one connection to Redis among all concurrent calls.

redis-py opens the connection (names, TLS, password, protocol); hiredis packs commands and parses answers. redis-py's own
clients and pipelines give a connection to one call at a time. Their pool, retries and statistics cost more than the rest
of a read (docs/adr/0015-redis-link.md).
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Self, cast

from hiredis import Reader, pack_command
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

_READ_BYTES = 1 << 16

RedisCommand = tuple[Any, ...]


class RedisLink:
    """
    Send the commands of each turn of the event loop together, and match the answers in order.

    Args:
        make_connection: Returns a connection that is not connected yet and has no timeout.
        timeout_s: Limit for connecting, and for the answers of a call.

    If a call finds the connection broken, it is sent again over a new connection, so commands must be safe to repeat.
    A closed link stays closed.
    """

    def __init__(self, make_connection: Callable[[], AbstractConnection], *, timeout_s: float) -> None:
        self._make_connection = make_connection
        self._timeout_s = timeout_s
        self._opening = asyncio.Lock()
        self._open: _Open | None = None
        self._closed = False

    async def ask(self, commands: Sequence[RedisCommand]) -> list[Any]:
        """
        Send *commands* together and return their answers, bytes as text; an error that Redis answers is one of them.

        Raises:
            RedisError: no connection, or it broke, or no answers in time, or the link was closed.
        """
        ends = asyncio.get_running_loop().time() + self._timeout_s
        packed = b"".join(map(pack_command, commands))
        opened = await self._opened(ends)
        try:
            return await opened.ask(packed, len(commands), ends)
        except RedisConnectionError:
            # Redis may have closed the connection while it was idle, which shows at the next use.
            opened = await self._opened(ends)
            return await opened.ask(packed, len(commands), ends)

    async def aclose(self) -> None:
        """Close the connection, or the one being opened. Calls in progress and later calls fail."""
        self._closed = True
        async with self._opening:
            if self._open is not None:
                await self._open.aclose()

    async def _opened(self, ends: float) -> "_Open":
        if self._open is not None and not self._open.broken:
            return self._open
        try:
            async with asyncio.timeout_at(ends), self._opening:
                if self._closed:
                    raise RedisConnectionError("the link was closed")
                if self._open is None or self._open.broken:
                    if self._open is not None:
                        await self._open.aclose()
                    # redis-py reads its own version from the disk for each connection.
                    self._open = await _Open.make(await asyncio.to_thread(self._make_connection))
                return self._open
        except TimeoutError as error:
            raise RedisTimeoutError("no connection in time") from error


class _Call:
    """A call in progress: its *count* of commands, the answers so far, the time it *ends*, and its result."""

    def __init__(self, count: int, ends: float) -> None:
        self.count = count
        self.ends = ends
        self.answers: list[Any] = []
        self.done: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()

    def succeed(self) -> None:
        # The result is done already if the caller was cancelled.
        if not self.done.done():
            self.done.set_result(self.answers)

    def fail(self, error: RedisError) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class _Open:
    """
    An open connection, until it is `broken`.

    Redis answers calls in order, so the first call in the queue is the first to time out. One timer is enough.
    """

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self._calls: deque[_Call] = deque()
        self._reader = asyncio.create_task(self._read())
        self._watch: asyncio.TimerHandle | None = None
        self._unsent: list[bytes] = []
        self._sender: asyncio.Task[None] | None = None
        self.broken = False

    @classmethod
    async def make(cls, connection: AbstractConnection) -> Self:
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return cls(connection)

    async def ask(self, packed: bytes, count: int, ends: float) -> list[Any]:
        if self.broken or not self._connection.is_connected:
            self.broken = True
            raise RedisConnectionError("the connection was closed")
        call = _Call(count, ends)
        self._calls.append(call)
        self._unsent.append(packed)
        if self._watch is None:
            self._watch = asyncio.get_running_loop().call_at(ends, self._end_if_late)
        if len(self._unsent) == 1:
            self._sender = asyncio.create_task(self._send())
        return await call.done

    async def aclose(self) -> None:
        self.broken = True
        self._reader.cancel()
        await asyncio.wait([self._reader])
        # A reader that was cancelled before its first step has not failed the calls.
        self._end(RedisConnectionError("the connection was closed"))
        with contextlib.suppress(RedisError, OSError):
            await self._connection.disconnect(nowait=True)

    async def _send(self) -> None:
        """Send the commands of one turn of the event loop with one write, in the order of the calls."""
        packed = b"".join(self._unsent)
        self._unsent.clear()
        try:
            # A disconnected connection would reconnect here, without a reader.
            if self._connection.is_connected:
                await self._connection.send_packed_command(packed, check_health=False)
        except (RedisError, RuntimeError):
            # uvloop raises RuntimeError for a transport that has just ended. Part of the commands may be sent, so later
            # answers could not be matched.
            self.broken = True
            self._reader.cancel()

    def _end_if_late(self) -> None:
        """End the connection if the first call is late, because its answers could be taken for those of the next call."""
        loop = asyncio.get_running_loop()
        self._watch = None
        if not self._calls:
            return
        if self._calls[0].ends > loop.time():
            self._watch = loop.call_at(self._calls[0].ends, self._end_if_late)
            return
        self.broken = True
        for call in self._calls:
            if call.ends <= loop.time():
                call.fail(RedisTimeoutError("no answer in time"))
        self._reader.cancel()

    async def _read(self) -> None:
        failure: RedisError = RedisConnectionError("the connection was closed")
        # redis-py returns one answer at a time through three coroutines. This loop takes all that arrived together.
        stream = cast("asyncio.StreamReader", self._connection._reader)  # noqa: SLF001
        reader = Reader(protocolError=InvalidResponse, replyError=_refusal, encoding="utf-8", errors="replace")
        try:
            while data := await stream.read(_READ_BYTES):
                reader.feed(data)
                while (answer := reader.gets()) is not False:
                    if not self._calls:
                        raise RedisConnectionError("Redis sent an answer without a command")
                    call = self._calls[0]
                    call.answers.append(answer)
                    if len(call.answers) == call.count:
                        self._calls.popleft().succeed()
        except RedisError as error:
            failure = error
        except OSError as error:
            failure = RedisConnectionError(f"the connection broke: {error.strerror}")
        finally:
            self._end(failure)

    def _end(self, failure: RedisError) -> None:
        self.broken = True
        if self._watch is not None:
            self._watch.cancel()
        for call in self._calls:
            call.fail(failure)


def _refusal(text: str) -> ResponseError:
    return NoScriptError(text) if text.startswith("NOSCRIPT ") else ResponseError(text)
