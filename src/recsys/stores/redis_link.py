"""
One connection to Redis for all calls at once.

redis-py makes the connection (names, TLS, password, protocol) and hiredis packs commands and parses answers. redis-py's
clients and pipelines hand a connection to one call at a time, with a pool, retries and statistics around it, which
costs more than the rest of a read together (docs/adr/0015-redis-link.md).
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

Command = tuple[Any, ...]


class RedisLink:
    """
    Sends commands as they come, those of one turn of the event loop together; answers come back in that order.

    Args:
        make_connection: Returns a connection that is not connected yet, with no timeout of its own.
        timeout_s: For connecting, and for the answers of a call.

    A call that finds a connection broken which was idle is sent again over a new one: commands have to allow that.
    A link that was closed stays closed.
    """

    def __init__(self, make_connection: Callable[[], AbstractConnection], *, timeout_s: float) -> None:
        self._make_connection = make_connection
        self._timeout_s = timeout_s
        self._opening = asyncio.Lock()
        self._open: _Open | None = None
        self._closed = False

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
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
            # It may have been closed long ago: nobody tells a connection that is idle.
            opened = await self._opened(ends)
            return await opened.ask(packed, len(commands), ends)

    async def aclose(self) -> None:
        """Close the connection, also one that is being made. Calls under way fail, as later ones do."""
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
                    self._open = await _Open.make(self._make_connection())
                return self._open
        except TimeoutError as error:
            raise RedisTimeoutError("no connection in time") from error


class _Call:
    """*count* commands on their way: the answers so far, and the future that gets all of them before it *ends*."""

    def __init__(self, count: int, ends: float) -> None:
        self.count = count
        self.ends = ends
        self.answers: list[Any] = []
        self.done: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()

    def succeed(self) -> None:
        # Done already: whoever asked has left.
        if not self.done.done():
            self.done.set_result(self.answers)

    def fail(self, error: RedisError) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class _Open:
    """
    A connection that is there, until it is `broken`.

    Calls are answered in their order, so the first of them is the first to be late: one timer watches over all.
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
            self._watch = asyncio.get_running_loop().call_at(ends, self._look)
        if len(self._unsent) == 1:
            self._sender = asyncio.create_task(self._send())
        return await call.done

    async def aclose(self) -> None:
        self.broken = True
        self._reader.cancel()
        await asyncio.wait([self._reader])
        # A reader that was cancelled before it began has told nobody.
        self._end(RedisConnectionError("the connection was closed"))
        with contextlib.suppress(RedisError, OSError):
            await self._connection.disconnect(nowait=True)

    async def _send(self) -> None:
        """Send what was asked in one turn of the event loop with one write, in the order in which the calls stand."""
        packed = b"".join(self._unsent)
        self._unsent.clear()
        try:
            # Left to itself the connection would connect anew, and nobody would read from it.
            if self._connection.is_connected:
                await self._connection.send_packed_command(packed, check_health=False)
        except (RedisError, RuntimeError):
            # The latter is uvloop's for a transport that has just ended. Whatever was written of it, the next answer could
            # not be told from this one's.
            self.broken = True
            self._reader.cancel()

    def _look(self) -> None:
        """End the connection where the first call is late: its answers could be taken for the next one's."""
        loop = asyncio.get_running_loop()
        self._watch = None
        if not self._calls:
            return
        if self._calls[0].ends > loop.time():
            self._watch = loop.call_at(self._calls[0].ends, self._look)
            return
        self.broken = True
        for call in self._calls:
            if call.ends <= loop.time():
                call.fail(RedisTimeoutError("no answer in time"))
        self._reader.cancel()

    async def _read(self) -> None:
        failure: RedisError = RedisConnectionError("the connection was closed")
        # redis-py hands out one answer at a time, each by way of three coroutines; here all that came together are taken.
        stream = cast("asyncio.StreamReader", self._connection._reader)  # noqa: SLF001
        reader = Reader(protocolError=InvalidResponse, replyError=_refusal, encoding="utf-8", errors="replace")
        try:
            while data := await stream.read(_READ_BYTES):
                reader.feed(data)
                while (answer := reader.gets()) is not False:
                    if not self._calls:
                        raise RedisConnectionError("an answer that nobody asked for")
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
