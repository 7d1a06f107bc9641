"""Cancel the work for a caller that disconnects, or whose time budget is spent."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Any, Self

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# Most requests are answered sooner, so they need no task and no timer for the watch.
WATCH_AFTER_S = 0.02


class ClientDisconnectedError(Exception):
    """The caller closed the connection before it was answered."""


class WatchStarter:
    """
    Starts the watch of each block that is still running after 20 to 40 ms.

    Serves one event loop at a time, and forgets the blocks of an earlier loop when the first block of the next begins.

    Cost: a dictionary entry for each block, and one timer for all blocks instead of one for each.
    """

    def __init__(self) -> None:
        # Oldest first.
        self._waiting: dict[CallerWatch, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def add(self, watch: "CallerWatch") -> None:
        """Start *watch* in 20 to 40 ms unless it is removed before."""
        if watch.loop is not self._loop:
            self._loop, self._timer = watch.loop, None
            self._waiting.clear()
        self._waiting[watch] = None
        if self._timer is None:
            self._timer = watch.loop.call_later(WATCH_AFTER_S, self._start_due)

    def remove(self, watch: "CallerWatch") -> None:
        """Forget *watch* if it still waits."""
        self._waiting.pop(watch, None)

    def _start_due(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(WATCH_AFTER_S, self._start_due) if self._waiting else None
        begun = loop.time() - WATCH_AFTER_S
        while self._waiting and (oldest := next(iter(self._waiting))).began <= begun:
            del self._waiting[oldest]
            oldest.start()


class CallerWatch:
    """
    Cancels the block that it guards when the caller disconnects or the time is over.

    The block then raises ClientDisconnectedError, or TimeoutError.

    Args:
        receive: The request's ASGI channel. The body has been read, so the next message is the disconnect.
        within_s: How long the block may take.
        starter: Starts the watch unless the block ends soon.

    Attributes:
        loop: The event loop that runs the block.
        began: When the block began, by the loop's clock.

    Cost: a timer and a task, for blocks that take longer than 20 ms.
    """

    def __init__(self, receive: Receive, *, within_s: float, starter: WatchStarter) -> None:
        self._receive = receive
        self._within_s = within_s
        self._starter = starter
        self.loop = asyncio.get_running_loop()
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._reason: type[Exception] | None = None
        self.began = self.loop.time()

    def __enter__(self) -> Self:
        """Start the watch later, or immediately if the time is too short for that."""
        self._task = asyncio.current_task(self.loop)
        if self._within_s > 2 * WATCH_AFTER_S:
            self._starter.add(self)
        else:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the watch, and raise the reason if it was the watch that cancelled the block."""
        self._starter.remove(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        # A cancelled task refers to its frames, and they refer to this watch. Without the next line, each request would
        # leave a cycle of 24 objects to the garbage collector, which would take a tenth of the CPU time.
        self._timer = self._watcher = None
        if self._reason is None or self._task is None:
            return
        # As in asyncio.timeout: a task that was also cancelled from elsewhere stays cancelled.
        ours_alone = self._task.uncancel() == 0
        if ours_alone and kind is asyncio.CancelledError:
            raise self._reason from error

    def start(self) -> None:
        """Wait for the disconnect and for the end of the time."""
        self._timer = self.loop.call_at(self.began + self._within_s, self._end, TimeoutError)
        self._watcher = self.loop.create_task(self._watch())

    async def _watch(self) -> None:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._end(ClientDisconnectedError)

    def _end(self, reason: type[Exception]) -> None:
        if self._reason is None and self._task is not None:
            self._reason = reason
            self._task.cancel()
