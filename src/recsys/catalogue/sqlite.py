"""The catalogue in the file of a SQLite feature store."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

from msgspec.structs import astuple

from recsys.catalogue.entries import Entry
from recsys.stores.sqlite import TranslatedSqliteErrors
from recsys.stores.sqlite_file import check_file, connect, prepare

_PUT = """
INSERT INTO items SELECT ?, ?, ?, ?, ?, 1 + ifnull(max(revision), 0) FROM items WHERE true
ON CONFLICT DO UPDATE SET
    description = CASE WHEN (excluded.described_us, excluded.description) > (described_us, description)
        THEN excluded.description ELSE description END,
    described_us = max(described_us, excluded.described_us),
    available = CASE WHEN (excluded.available_us, excluded.available) > (available_us, available)
        THEN excluded.available ELSE available END,
    available_us = max(available_us, excluded.available_us),
    revision = excluded.revision
WHERE (excluded.described_us, excluded.description) > (described_us, description)
    OR (excluded.available_us, excluded.available) > (available_us, available)
"""
_REVISION = "SELECT ifnull(max(revision), 0) FROM items"
_CHANGED = "SELECT item_id, description, described_us, available, available_us FROM items WHERE revision > ?"


class SqliteCatalogue:
    """
    Keep entries in the table `items` of a feature store's file.

    Args:
        path: The file, which exists.

    Raises:
        StoreError: as for `SqliteStore`.
    """

    def __init__(self, path: Path) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite-catalogue")
        self._translated = TranslatedSqliteErrors(path)
        check_file(path, create=False)
        with self._translated, ExitStack() as opened:
            self._connection = opened.enter_context(closing(connect(path)))
            prepare(self._connection, path, create=False)
            opened.pop_all()

    async def put(self, entries: Sequence[Entry]) -> list[bool]:
        """Merge *entries* in one transaction."""
        self._translated.check_open()
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._put, entries)

    async def read(self, *, after: int) -> tuple[int, list[Entry]]:
        """Return the revision and the changed entries, from one snapshot; a few microseconds without changes."""
        self._translated.check_open()
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._read, after)

    async def aclose(self) -> None:
        """Close the file."""
        self._translated.closed = True
        await asyncio.to_thread(self._thread.shutdown)
        self._connection.close()

    def _put(self, entries: Sequence[Entry]) -> list[bool]:
        with self._translated, self._connection as transaction:
            transaction.execute("BEGIN IMMEDIATE")
            return [bool(transaction.execute(_PUT, astuple(entry)).rowcount) for entry in entries]

    def _read(self, after: int) -> tuple[int, list[Entry]]:
        with self._translated, self._connection as transaction:
            transaction.execute("BEGIN")
            (revision,) = transaction.execute(_REVISION).fetchone()
            rows = transaction.execute(_CHANGED, [after]).fetchall() if revision > after else []
        return revision, [Entry(item, text, at_us, bool(available), us) for item, text, at_us, available, us in rows]
