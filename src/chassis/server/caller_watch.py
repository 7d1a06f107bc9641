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


class DisconnectSignal:
    """
    The ASGI channel of a request whose body has been read: its only message is the disconnect.

    A watch that is called back needs no task, which a channel of another server needs.
    """

    __slots__ = ("_call", "_is_set")

    def __init__(self) -> None:
        self._is_set = False
        self._call: Callable[[], None] | None = None

    def set(self) -> None:
        """Tell the watch that the caller has disconnected."""
        self._is_set = True
        if self._call is not None:
            self._call()

    def notify(self, call: Callable[[], None] | None) -> None:
        """Call *call* when the caller disconnects, or immediately if that has happened; None calls nothing any more."""
        self._call = call
        if call is not None and self._is_set:
            call()

    async def __call__(self) -> dict[str, Any]:
        """Return the disconnect message when the caller disconnects."""
        disconnected = asyncio.Event()
        self.notify(disconnected.set)
        await disconnected.wait()
        return {"type": "http.disconnect"}


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

    Cost: a timer, for blocks that take longer than 20 ms; also a task if *receive* is not a `DisconnectSignal`.
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
        if isinstance(self._receive, DisconnectSignal):
            self._receive.notify(None)
        # A cancelled task refers to its frames, and they refer to this watch. Without the next line, each request would
        # leave a cycle of 24 objects to the garbage collector.
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
        if isinstance(self._receive, DisconnectSignal):
            self._receive.notify(self._disconnect)
        else:
            self._watcher = self.loop.create_task(self._watch())

    def _disconnect(self) -> None:
        self._end(ClientDisconnectedError)

    async def _watch(self) -> None:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._disconnect()

    def _end(self, reason: type[Exception]) -> None:
        if self._reason is None and self._task is not None:
            self._reason = reason
            self._task.cancel()
