"""Follow the catalogue of the feature store, and let the model take its changes over."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from chassis.background import repeating
from functions.rank_items.live_model import LiveModel
from recrank.artefact import ArtefactError
from recstore.catalogue.entries import Catalogue, Entry
from recstore.catalogue.urls import open_catalogue
from recstore.port import StoreError

log = logging.getLogger("recsys.rank_items")

LOOK_AGAIN_S = 1.0
# An instance becomes ready without the catalogue if the store does not answer within this time.
_FIRST_LOOK_S = 3.0
# Taking changes over may use at most a third of the time, so that a long series of changes does not slow down ranking.
_PAUSES = 2


class CatalogueFollower:
    """
    Reads the changes of a catalogue.

    Args:
        live: Takes the changes over.
        url: URL of the feature store that has the catalogue.
        password: Password for Redis, if the URL has none.

    Attributes:
        revision: Revision of the catalogue that *live* has.
        has_looked: Set after the first look.
    """

    def __init__(self, live: LiveModel, url: str, *, password: str | None = None) -> None:
        self._live, self._url, self._password = live, url, password
        self._catalogue: Catalogue | None = None
        self._entries: dict[str, Entry] = {}
        self._is_lost = False
        self._is_applied = True
        self._read_until = 0
        self.revision = 0
        self.has_looked = asyncio.Event()

    async def look(self) -> None:
        """Read what has changed, and let the model take it over. The model stays as it is if the store cannot be read."""
        try:
            revision, entries = await self._read()
        except StoreError as error:
            if not self._is_lost:
                log.warning("catalogue_unavailable", extra={"reason": str(error)})
            self._is_lost = True
            return
        self._is_lost = False
        if entries != self._entries:
            self._entries = entries
            self._is_applied = await self._take_over()
        self._read_until = revision
        # A change that cannot be applied keeps the former revision until the next change.
        if self._is_applied:
            self.revision = revision

    async def _read(self) -> tuple[int, dict[str, Entry]]:
        """Return the revision and all entries."""
        if self._catalogue is None:
            # Opening reads files, which would hold up the event loop.
            self._catalogue = await asyncio.to_thread(open_catalogue, self._url, password=self._password)
        revision, changed = await self._catalogue.read(after=self._read_until)
        if revision < self._read_until:
            # The store was replaced by another one.
            revision, changed = await self._catalogue.read(after=0)
            return revision, {entry.item_id: entry for entry in changed}
        return revision, {**self._entries, **{entry.item_id: entry for entry in changed}} if changed else self._entries

    async def _take_over(self) -> bool:
        """Let the model take the entries over; return whether it could."""
        try:
            async with self._live.changing:
                await asyncio.to_thread(self._live.follow, self._entries)
        except ArtefactError as error:
            log.error("catalogue_not_applied", extra={"reason": str(error)})  # noqa: TRY400 - no trace needed
        except Exception as error:
            # Loading runs the code of a team's features, which may raise anything.
            log.exception("catalogue_not_applied", extra={"reason": repr(error)})
        else:
            return True
        return False

    async def look_and_wait(self) -> None:
        """Look, and wait until the next look is due."""
        began = time.monotonic()
        await self.look()
        self.has_looked.set()
        await asyncio.sleep(max(LOOK_AGAIN_S, _PAUSES * (time.monotonic() - began)))

    async def aclose(self) -> None:
        """Close the catalogue."""
        if self._catalogue is not None:
            await self._catalogue.aclose()


@asynccontextmanager
async def catalogue_followed(follower: CatalogueFollower | None) -> AsyncIterator[None]:
    """Take the catalogue over, and follow it until the block ends."""
    if follower is None:
        yield
        return
    async with aclosing(follower), repeating(follower.look_and_wait):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_LOOK_S):
                await follower.has_looked.wait()
        yield
