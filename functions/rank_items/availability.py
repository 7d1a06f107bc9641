"""Items that no user may get for now, because they are sold out, withdrawn or not licensed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from chassis.background import repeating
from chassis.watched_file import LOOK_AGAIN_S, WatchedFile
from functions.rank_items.live_model import LiveModel
from recrank.model import RankingModel


def parse_item_ids(text: str) -> list[str]:
    """Return the item ids in *text*, one per line. Empty lines and lines that begin with `#` are ignored."""
    # An id may contain characters at which `splitlines` splits.
    lines = (line.strip() for line in text.split("\n"))
    return [line for line in lines if line and not line.startswith("#")]


@asynccontextmanager
async def kept_available(model: LiveModel | RankingModel, path: Path | None) -> AsyncIterator[None]:
    """Exclude the items listed in the file at *path* until the block ends; changes of the file take effect."""
    if path is None:
        yield
        return
    file: WatchedFile[list[str]] = WatchedFile(path, parse_item_ids, unread=[])

    async def look() -> None:
        if await asyncio.to_thread(file.look):
            model.make_unavailable(file.content)

    async def look_later() -> None:
        await asyncio.sleep(LOOK_AGAIN_S)
        await look()

    await look()
    async with repeating(look_later):
        yield
