"""The changes of the catalogue in training and in new stores."""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from contextlib import aclosing
from pathlib import Path

from recstore.catalogue.entries import REMOVED, Entry
from recstore.catalogue.urls import open_catalogue
from recstore.port import StoreError
from recstore.urls import sqlite_url
from recsys.items import Item


async def read_entries(url: str, *, password: str | None = None) -> dict[str, Entry]:
    """
    Return the entries of the catalogue of the store at *url*, by item.

    Raises:
        StoreError: the store cannot be read.
    """
    async with aclosing(open_catalogue(url, password=password)) as catalogue:
        _, entries = await catalogue.read(after=0)
    return {entry.item_id: entry for entry in entries}


async def put_entries(url: str, entries: Iterable[Entry], *, password: str | None = None) -> int:
    """
    Merge *entries* into the catalogue of the store at *url*; return how many changed something.

    Raises:
        StoreError: the store cannot be written.
    """
    async with aclosing(open_catalogue(url, password=password)) as catalogue:
        return sum(await catalogue.put(list(entries)))


def changed_items(items: Mapping[str, Item], entries: Mapping[str, Entry]) -> dict[str, Item]:
    """Return *items* with the descriptions of *entries*, and without removed items."""
    described = {each.item_id: item for each in entries.values() if (item := each.item())}
    return {
        item_id: item
        for item_id, item in {**items, **described}.items()
        if item_id not in entries or entries[item_id].description != REMOVED
    }


def carry_over(paths: Iterable[Path], target: Path, *, imported: Collection[str]) -> None:
    """
    Merge the catalogues of the stores at *paths* into that of *target*.

    The descriptions of items that were *imported* into the target are newer, so only their availability is taken. A
    store that cannot be read is left out.

    Raises:
        StoreError: *target* cannot be written.
    """

    async def carry() -> None:
        for path in paths:
            try:
                entries = (await read_entries(sqlite_url(path))).values()
            except StoreError:
                continue
            kept = [_without_description(each) if each.item_id in imported else each for each in entries]
            await put_entries(sqlite_url(target), kept)

    asyncio.run(carry())


def _without_description(entry: Entry) -> Entry:
    return Entry(entry.item_id, available=entry.available, available_us=entry.available_us)
