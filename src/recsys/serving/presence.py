"""Nobody works for a caller who has gone."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

Receive = Callable[[], Awaitable[Any]]

# Most requests are answered sooner and never pay for a watcher.
WATCH_AFTER_S = 0.02


class ClientGoneError(Exception):
    """The caller closed the connection before the answer was there: there is nobody to answer."""


class Presence:
    """
    Cancels the block it guards when the caller disconnects; the block then raises ClientGoneError.

    Args:
        receive: The request's ASGI channel, its body already read: what comes next is the disconnect.

    Cost: a timer; for blocks longer than 20 ms a task.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._gone = False

    async def __aenter__(self) -> Self:
        """Begin to watch, in a while."""
        self._task = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER_S, self._begin)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop watching; tell a disconnect from another cancellation."""
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if self._gone and self._task is not None and self._task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise ClientGoneError from error

    def _begin(self) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        message = await self._receive()
        if message["type"] == "http.disconnect" and self._task is not None:
            self._gone = True
            self._task.cancel()
