"""Items that no user may get for now, because they are sold out, withdrawn or not licensed."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from chassis.watched_file import LOOK_AGAIN_S, WatchedFile


class Closable(Protocol):
    """A model whose items can be made unavailable."""

    def make_unavailable(self, item_ids: Sequence[str]) -> None:
        """Stop returning *item_ids*, and return the items of the former call again."""


def parse_item_ids(text: str) -> list[str]:
    """Return the item ids in *text*, one per line. Empty lines and lines that begin with `#` are ignored."""
    # An id may contain characters at which `splitlines` splits.
    lines = (line.strip() for line in text.split("\n"))
    return [line for line in lines if line and not line.startswith("#")]


@asynccontextmanager
async def kept_available(model: Closable, path: Path | None) -> AsyncIterator[None]:
    """Exclude the items listed in the file at *path* until the block ends; changes of the file take effect."""
    if path is None:
        yield
        return
    file: WatchedFile[list[str]] = WatchedFile(path, parse_item_ids, unread=[])
    await _look(file, model)
    watching = asyncio.create_task(_watch(file, model))
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _watch(file: WatchedFile[list[str]], model: Closable) -> None:
    while True:
        await asyncio.sleep(LOOK_AGAIN_S)
        await _look(file, model)


async def _look(file: WatchedFile[list[str]], model: Closable) -> None:
    if await asyncio.to_thread(file.look):
        model.make_unavailable(file.content)
