"""Nobody works for a caller who has gone, or for longer than there is time."""

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
    Cancels the block it guards when the caller disconnects, or when the time is over.

    The block then raises ClientGoneError, or TimeoutError.

    Args:
        receive: The request's ASGI channel, its body already read: what comes next is the disconnect.
        within_s: How long the block may take.

    Cost: a timer; for blocks longer than 20 ms another one and a task. One timer for both is why the time is kept here.
    """

    def __init__(self, receive: Receive, *, within_s: float) -> None:
        self._receive = receive
        self._within_s = within_s
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._verdict: type[Exception] | None = None

    async def __aenter__(self) -> Self:
        """Begin to watch, in a while."""
        self._task = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(min(WATCH_AFTER_S, self._within_s), self._begin)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop watching; tell a disconnect and the end of the time from another cancellation."""
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if self._verdict and self._task and self._task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise self._verdict from error

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(0.0, self._within_s - WATCH_AFTER_S), self._end, TimeoutError)
        self._watcher = loop.create_task(self._watch())

    async def _watch(self) -> None:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._end(ClientGoneError)

    def _end(self, verdict: type[Exception]) -> None:
        if self._verdict is None and self._task is not None:
            self._verdict = verdict
            self._task.cancel()
