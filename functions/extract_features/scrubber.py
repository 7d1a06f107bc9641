"""Overwrite what erasures by event left in the files of the store, some seconds after them and beside the requests."""

import asyncio
import logging
import time
from contextlib import AbstractAsyncContextManager

from chassis.background import repeating
from recstore.port import FeatureStore, StoreError

log = logging.getLogger("recsys.extract_features")

PAUSE_S = 5.0
_SHARE = 0.01


class Scrubber:
    """
    Scrubs *store* after erasures. Erasures that follow each other share one scrubbing.

    Args:
        store: The feature store.
        pause_s: Time from an erasure to the scrubbing; longer if scrubbing takes more than 1 % of it.
    """

    def __init__(self, store: FeatureStore, *, pause_s: float = PAUSE_S) -> None:
        self._store, self._least_pause_s, self._pause_s = store, pause_s, pause_s
        self._wanted = asyncio.Event()

    def scrub_soon(self) -> None:
        """Scrub the store after a pause."""
        self._wanted.set()

    def running(self) -> AbstractAsyncContextManager[None]:
        """Scrub while the block runs. The next `up` or training does what is left."""
        return repeating(self._scrub)

    async def _scrub(self) -> None:
        await self._wanted.wait()
        await asyncio.sleep(self._pause_s)
        # An erasure from here on needs another scrubbing.
        self._wanted.clear()
        began = time.monotonic()
        try:
            if not await self._store.scrub(quickly=True):
                log.warning("store_not_scrubbed", extra={"reason": "it is large; users erase, up and train scrub it"})
        except StoreError:
            self._wanted.set()
        self._pause_s = max(self._least_pause_s, (time.monotonic() - began) / _SHARE)
