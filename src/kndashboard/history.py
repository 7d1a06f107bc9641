"""The latest snapshots of a platform, shared by all readers."""

import asyncio
from collections import deque

from kndashboard.snapshots import Snapshot, Watcher

_FRESH_S = 0.5
_WINDOW_S = 10.0


class SnapshotHistory:
    """
    The snapshots of the last ten seconds. A new snapshot is taken only when a reader asks.

    Args:
        watcher: Takes the snapshots.
    """

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._snapshots: deque[Snapshot] = deque()
        self._turn = asyncio.Lock()

    async def window(self) -> tuple[Snapshot, Snapshot]:
        """
        Return the oldest snapshot of the last ten seconds and a current one. They may be the same.

        Raises:
            LocalknError: no platform runs.
        """
        async with self._turn:
            now = self._watcher.clock()
            if not self._snapshots or now - self._snapshots[-1].at > _FRESH_S:
                self._snapshots.append(await self._watcher.snapshot())
            while self._snapshots[-1].at - self._snapshots[0].at > _WINDOW_S:
                self._snapshots.popleft()
            return self._snapshots[0], self._snapshots[-1]
