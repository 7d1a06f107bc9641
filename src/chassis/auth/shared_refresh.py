"""A refresh that callers share: one runs at a time, and no caller can cancel it or is held up by it for long."""

import asyncio
from collections.abc import Awaitable, Callable


class SharedRefresh:
    """
    Runs *refresh* in a separate task, at most once at a time.

    A caller that disconnects does not cancel the task. Otherwise it would take the result away from the other callers.

    Args:
        refresh: Does the work; must not raise.
    """

    def __init__(self, refresh: Callable[[], Awaitable[object]]) -> None:
        self._refresh = refresh
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Start the refresh unless it is running."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def wait(self, *, within_s: float) -> None:
        """Wait until the running refresh has ended, at most *within_s*; return immediately if none is running."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=max(0.0, within_s))

    async def aclose(self) -> None:
        """Cancel the running refresh."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            await self._refresh()
        finally:
            self._task = None
