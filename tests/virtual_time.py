"""A clock that asynchronous tests move, in place of sleeps: minutes of timeouts pass within milliseconds."""

import asyncio
import selectors
import time
from collections.abc import Callable
from typing import Any

import pytest

# Time passes in each turn of the loop, as on a real clock: a timer that is rescheduled by a rounding error ends.
_TURN_S = 1e-6
# A peer on a socket of the same loop has this long before the clock jumps. Its bytes are there immediately as a rule.
_PEER_S = 0.001


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """
    An event loop whose clock jumps to the next timer whenever nothing else is ready.

    The clock stands still while a call runs in an executor of this loop. Use this loop only for code that otherwise waits
    for timers, tasks and sockets of this loop: while the code waits for another process, the clock jumps.
    """

    def __init__(self) -> None:
        self._now = time.monotonic()
        self._in_threads = 0
        super().__init__(_JumpingSelector(self._jump, stands_still=lambda: self._in_threads > 0))

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        """Run *func* in a thread, and let the clock stand still until it has returned."""
        self._in_threads += 1
        running = super().run_in_executor(executor, func, *args)
        running.add_done_callback(self._returned)
        return running

    def _returned(self, _: "asyncio.Future[Any]") -> None:
        self._in_threads -= 1

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._now

    def _jump(self, seconds: float) -> None:
        self._now += seconds


class _JumpingSelector(selectors.DefaultSelector):
    """A selector that moves the clock instead of waiting for a timer."""

    def __init__(self, jump: Callable[[float], None], *, stands_still: Callable[[], bool]) -> None:
        super().__init__()
        self._jump, self._stands_still = jump, stands_still

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait if no timer is due, else return what is ready or jump to the timer."""
        if timeout is None:
            return super().select(None)
        ready = super().select(min(timeout, _PEER_S))
        self._jump(_TURN_S if ready or self._stands_still() else timeout + _TURN_S)
        return ready


# Module marker: run each asynchronous test of the module on the virtual clock.
on_virtual_time = pytest.mark.parametrize(
    "anyio_backend", [pytest.param(("asyncio", {"loop_factory": VirtualTimeLoop}), id="virtual-time")]
)


class VirtualClock:
    """The clock of a test that runs on the virtual time loop."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self.now = loop.time

    async def advance(self, seconds: float) -> None:
        """Let *seconds* pass, with all timers that end by then and all the work that they make ready."""
        await asyncio.sleep(seconds)
        for _ in range(20):
            await asyncio.sleep(0)


def virtual_clock(loop: Any, monkeypatch: pytest.MonkeyPatch) -> VirtualClock:
    """Return the clock of *loop*, and let `time.monotonic` show it as well until the test ends."""
    assert isinstance(loop, VirtualTimeLoop), "mark the test with on_virtual_time"
    monkeypatch.setattr(time, "monotonic", loop.time)
    return VirtualClock(loop)
