"""
The last known list of popular items, which recommend answers with while rank_items is unavailable.

The list is rank_items' answer for a user without history. A background task fetches it together with a request, never
alone, so that rank_items can scale to zero. A request after a pause thereby wakes rank_items while its features are
fetched. A file keeps the list, so that recommend has one even if it restarts during an outage.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import msgspec

from chassis.background import repeating
from chassis.call import Call, Deadline
from chassis.receipt import Receipt
from chassis.wire.json_text import NOT_DECODED
from chassis.wire.problems import DependencyError, ServingError
from functions.recommend.hops import UNKNOWN_USER, RankCall, RankingClient, decode_items
from functions.recommend.settings import PopularSettings
from recsys.contracts.wire import MAX_TOP_K, RankedItem, encode

log = logging.getLogger("recsys.recommend")

# Many users have seen most popular items, so the list has several pages.
PAGES = 5
_TIMEOUT_S = 1.0
_AFTER_FAILURE_S = 1.0


class PopularList:
    """
    Holds the list and refreshes it.

    Args:
        ranking: The client for rank_items.
        settings: The file that keeps the list, and the time between refreshes.
    """

    def __init__(self, ranking: RankingClient, settings: PopularSettings) -> None:
        self._ranking = ranking
        self._path = settings.path
        self._refresh_s = settings.refresh_s
        self._list: list[RankedItem] = []
        self._in_use = asyncio.Event()

    def note_request(self) -> None:
        """Note that recommend is in use, which allows a refresh of the list."""
        self._in_use.set()

    def pick(self, unwanted: Iterable[str], limit: int) -> list[RankedItem]:
        """Return the best *limit* items that are not *unwanted*; an empty list if no list is known."""
        skipped = frozenset(unwanted)
        return [item for item in self._list if item.item_id not in skipped][:limit]

    async def warm(self) -> None:
        """Load the list that an earlier process saved, and try once to fetch a newer one."""
        await asyncio.to_thread(self._load)
        with contextlib.suppress(ServingError):
            await self.refresh()

    @asynccontextmanager
    async def kept_fresh(self, *, waits: bool = True) -> AsyncIterator[None]:
        """
        Load the list, and refresh it in the background until the block ends.

        Args:
            waits: Begin the block only after the first refresh, so that the list is known or rank_items is down.
        """
        await (self.warm() if waits else asyncio.to_thread(self._load))
        async with repeating(self._refresh_and_wait):
            yield

    async def refresh(self) -> None:
        """
        Fetch the list and save it.

        Raises:
            ServingError: rank_items did not answer; the known list stays.
        """
        fetched: list[RankedItem] = []
        for _ in range(PAGES):
            page = await self._page([item.item_id for item in fetched])
            fetched += page
            if len(page) < MAX_TOP_K:
                break
        if fetched and fetched != self._list:
            self._list = fetched
            await asyncio.to_thread(self._save)

    async def _refresh_and_wait(self) -> None:
        """Refresh, and wait for the first request after a pause; or only for a moment after a failure."""
        try:
            await self.refresh()
        except ServingError:
            await asyncio.sleep(_AFTER_FAILURE_S)
        else:
            await asyncio.sleep(self._refresh_s)
            self._in_use.clear()
            await self._in_use.wait()

    async def _page(self, exclude: list[str]) -> list[RankedItem]:
        call = Call(b"", [], "popular-list", Receipt(time.monotonic()), Deadline.after(_TIMEOUT_S))
        request = RankCall(UNKNOWN_USER.features, UNKNOWN_USER.history, MAX_TOP_K, exclude)
        (outcome,) = (await self._ranking.rank([request], call=call, within_s=_TIMEOUT_S)).value
        if isinstance(outcome, ServingError):
            raise outcome
        try:
            return decode_items(outcome.items)
        except msgspec.DecodeError as error:
            raise DependencyError("rank_items answered something unreadable") from error

    def _load(self) -> None:
        """Load the list from the file, if the file exists and is valid."""
        if self._path is None:
            return
        try:
            self._list = decode_items(self._path.read_bytes())
        except FileNotFoundError:
            return
        except (OSError, *NOT_DECODED) as error:
            log.warning("popular_list_unreadable", extra={"reason": str(error)})

    def _save(self) -> None:
        if self._path is None:
            return
        draft = self._path.with_suffix(f".{os.getpid()}")
        try:
            draft.write_bytes(encode(self._list))
            draft.replace(self._path)
        except OSError as error:
            log.warning("popular_list_not_kept", extra={"reason": str(error)})
