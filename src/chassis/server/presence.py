"""Nobody works for a caller who has gone, or for longer than there is time."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Any, Self

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# Most requests are answered sooner and never pay for a watcher.
WATCH_AFTER_S = 0.02


class ClientGoneError(Exception):
    """The caller closed the connection before the answer was there: there is nobody to answer."""


class Rounds:
    """
    Looks after the blocks that have just begun: those still there a round later get a watcher.

    For one event loop at a time: what a former one left behind is forgotten with the first block of the next.

    Cost: a dictionary entry a block, and one timer for all of them, where each would have started and stopped its own.
    """

    def __init__(self) -> None:
        # In the order in which they came.
        self._young: dict[Presence, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def take_in(self, presence: "Presence") -> None:
        """Watch *presence* from 20 to 40 ms on, unless it leaves before."""
        if presence.loop is not self._loop:
            self._loop, self._timer = presence.loop, None
            self._young.clear()
        self._young[presence] = None
        if self._timer is None:
            self._timer = presence.loop.call_later(WATCH_AFTER_S, self._look)

    def let_go(self, presence: "Presence") -> None:
        """Forget *presence*; it need not be here."""
        self._young.pop(presence, None)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(WATCH_AFTER_S, self._look) if self._young else None
        begun = loop.time() - WATCH_AFTER_S
        while self._young and (oldest := next(iter(self._young))).began <= begun:
            del self._young[oldest]
            oldest.watch()


class Presence:
    """
    Cancels the block it guards when the caller disconnects, or when the time is over.

    The block then raises ClientGoneError, or TimeoutError.

    Args:
        receive: The request's ASGI channel, its body already read: what comes next is the disconnect.
        within_s: How long the block may take.
        rounds: What looks after it at first.

    Attributes:
        loop: The event loop it runs on.
        began: When the block began, by the loop's clock.

    Cost: for blocks longer than 20 ms a timer and a task.
    """

    def __init__(self, receive: Receive, *, within_s: float, rounds: Rounds) -> None:
        self._receive = receive
        self._within_s = within_s
        self._rounds = rounds
        self.loop = asyncio.get_running_loop()
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._verdict: type[Exception] | None = None
        self.began = self.loop.time()

    def __enter__(self) -> Self:
        """Begin to watch: in a while, or at once where there is less time than that."""
        self._task = asyncio.current_task(self.loop)
        if self._within_s > 2 * WATCH_AFTER_S:
            self._rounds.take_in(self)
        else:
            self.watch()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop watching; tell a disconnect and the end of the time from another cancellation."""
        self._rounds.let_go(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if self._verdict is None or self._task is None:
            return
        # As asyncio.timeout does it: where somebody else cancelled the task as well, it stays cancelled.
        ours_alone = self._task.uncancel() == 0
        if ours_alone and kind is asyncio.CancelledError:
            raise self._verdict from error

    def watch(self) -> None:
        """Wait for the caller's departure and for the end of the time."""
        self._timer = self.loop.call_at(self.began + self._within_s, self._end, TimeoutError)
        self._watcher = self.loop.create_task(self._watch())

    async def _watch(self) -> None:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._end(ClientGoneError)

    def _end(self, verdict: type[Exception]) -> None:
        if self._verdict is None and self._task is not None:
            self._verdict = verdict
            self._task.cancel()
