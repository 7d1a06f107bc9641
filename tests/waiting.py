"""Wait for a condition in another process, thread or task that cannot signal an event to the test."""

import asyncio
import time
from collections.abc import Callable

# This limit only ends a test that has failed. A passing test on a busy machine stays far below it.
LIMIT_S = 120.0
_PAUSE_S = 0.005


def eventually(condition: Callable[[], object]) -> None:
    """Poll until *condition* holds."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, f"the condition did not hold within {LIMIT_S:.0f} s"
        time.sleep(_PAUSE_S)


async def until(condition: Callable[[], object]) -> None:
    """Poll until *condition* holds, and let other tasks run between two polls."""
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(_PAUSE_S)
