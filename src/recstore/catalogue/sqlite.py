"""The catalogue in the file of a SQLite feature store."""

from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import astuple

from recstore.catalogue.entries import Entry
from recstore.sqlite_file import SqliteFile

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
        self._file = SqliteFile(path, thread="sqlite-catalogue")

    async def put(self, entries: Sequence[Entry]) -> list[bool]:
        """Merge *entries* in one transaction."""
        return await self._file.run(self._put, entries)

    async def read(self, *, after: int) -> tuple[int, list[Entry]]:
        """Return the revision and the changed entries, from one snapshot; a few microseconds without changes."""
        return await self._file.run(self._read, after)

    async def aclose(self) -> None:
        """Close the file."""
        await self._file.aclose()

    def _put(self, entries: Sequence[Entry]) -> list[bool]:
        with self._file.transaction() as transaction:
            return [bool(transaction.execute(_PUT, astuple(entry)).rowcount) for entry in entries]

    def _read(self, after: int) -> tuple[int, list[Entry]]:
        with self._file.errors, self._file.writer as transaction:
            transaction.execute("BEGIN")
            (revision,) = transaction.execute(_REVISION).fetchone()
            rows = transaction.execute(_CHANGED, [after]).fetchall() if revision > after else []
        return revision, [Entry(item, text, at_us, bool(available), us) for item, text, at_us, available, us in rows]
