"""Looks at a platform that several readers share."""

import asyncio
from collections import deque

from kndashboard.snapshots import Snapshot, Watcher

_FRESH_S = 0.5
_WINDOW_S = 10.0


class History:
    """
    The looks of the last ten seconds; nobody looks while nobody asks.

    Args:
        watcher: What looks.
    """

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._looks: deque[Snapshot] = deque()
        self._turn = asyncio.Lock()

    async def looks(self) -> tuple[Snapshot, Snapshot]:
        """
        Return the oldest look of the window, which may be the newest, and one from just now.

        Raises:
            LocalknError: No platform runs.
        """
        async with self._turn:
            now = asyncio.get_running_loop().time()
            if not self._looks or now - self._looks[-1].at > _FRESH_S:
                self._looks.append(await self._watcher.look())
            while self._looks[-1].at - self._looks[0].at > _WINDOW_S:
                self._looks.popleft()
            return self._looks[0], self._looks[-1]
