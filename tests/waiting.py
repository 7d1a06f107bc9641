"""Wait for a condition in another process, thread or task that cannot signal an event to the test."""

import asyncio
import time
from collections.abc import Callable, Iterator

# This limit only ends a test that has failed. A passing test on a busy machine stays far below it.
LIMIT_S = 120.0
# The pauses grow, because each poll takes processor time from the process that the test waits for.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _GROWTH = 0.002, 0.05, 1.3


def eventually(condition: Callable[[], object]) -> None:
    """Poll until *condition* holds."""
    deadline = time.monotonic() + LIMIT_S
    pauses = _pauses_s()
    while not condition():
        assert time.monotonic() < deadline, f"the condition did not hold within {LIMIT_S:.0f} s"
        time.sleep(next(pauses))


async def until(condition: Callable[[], object]) -> None:
    """Poll until *condition* holds, and let other tasks run between two polls."""
    pauses = _pauses_s()
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(next(pauses))


def _pauses_s() -> Iterator[float]:
    pause_s = _FIRST_PAUSE_S
    while True:
        yield pause_s
        pause_s = min(pause_s * _GROWTH, _LONGEST_PAUSE_S)
