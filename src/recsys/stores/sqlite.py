"""
A feature store in one SQLite file: the embedded default.

Write-ahead logging lets several processes read while one writes. Reads are point look-ups of tens of microseconds
and run on the event loop; handing them to a thread would cost more than they do. They never wait for a lock: a
store that is locked is `StoreUnavailableError` at once, and the caller decides.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec

from recsys.contracts.wire import Features
from recsys.features import NOBODY
from recsys.stores.port import HistoryItem, StoreFormatError, StoreUnavailableError, UserRecord

SCHEMA_VERSION = 1
_OPENING_TIMEOUT_MS = 5000

_SCHEMA = """
CREATE TABLE users (
    user_id TEXT PRIMARY KEY, age_group TEXT NOT NULL, views INTEGER NOT NULL, clicks INTEGER NOT NULL,
    purchases INTEGER NOT NULL, sessions INTEGER NOT NULL, session_ms INTEGER NOT NULL, as_of_us INTEGER
) STRICT, WITHOUT ROWID;
CREATE TABLE history (
    user_id TEXT NOT NULL, item_id TEXT NOT NULL, weight REAL NOT NULL, time_us INTEGER NOT NULL,
    PRIMARY KEY (user_id, item_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX history_newest ON history (user_id, time_us DESC, item_id, weight);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
"""
_ONE_USER = "SELECT * FROM users WHERE user_id = ?"
_SOME_USERS = "SELECT * FROM users WHERE user_id IN (SELECT value FROM json_each(?))"
_NEWEST = "SELECT item_id, weight, time_us FROM history WHERE user_id = ? ORDER BY time_us DESC, item_id LIMIT ?"
_ALL_USERS = "SELECT * FROM users ORDER BY user_id"
_ALL_HISTORY = "SELECT user_id, item_id, weight, time_us FROM history ORDER BY user_id, time_us DESC, item_id"


class SqliteStore:
    """
    The port over one SQLite file.

    Args:
        path: The file; made, with its tables, where it does not exist.

    Raises:
        StoreFormatError: the file is no SQLite file, or of another version.
        StoreUnavailableError: the file cannot be opened or is locked.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with _translated(path):
            self._connection = _connect(path)
            self._prepare()

    async def read(self, user_ids: Sequence[str], *, history: int) -> list[UserRecord | None]:
        """Return the records of *user_ids*; about 40 us for a user with 50 items."""
        with _translated(self._path):
            if len(user_ids) == 1:
                rows = self._connection.execute(_ONE_USER, user_ids).fetchall()
            else:
                rows = self._connection.execute(_SOME_USERS, [json.dumps(user_ids)]).fetchall()
            newest = {row[0]: self._connection.execute(_NEWEST, (row[0], history)).fetchall() for row in rows}
        found = {row[0]: _record(row, [HistoryItem(*item) for item in newest[row[0]]]) for row in rows}
        return [found.get(user_id) for user_id in user_ids]

    async def population(self) -> Features:
        """Return the defaults for unknown users."""
        with _translated(self._path):
            row = self._connection.execute("SELECT value FROM facts WHERE name = 'population'").fetchone()
        return msgspec.json.decode(row[0], type=Features) if row else NOBODY

    async def replace(self, records: Iterable[UserRecord], *, population: Features) -> int:
        """Make *records* the whole content in one transaction; about 2 us a history item."""
        count = 0
        with _translated(self._path), self._connection as transaction:
            transaction.execute("BEGIN IMMEDIATE")
            for table in ("users", "history", "facts"):
                transaction.execute(f"DELETE FROM {table}")  # noqa: S608 - the names stand in the line above
            for record in records:
                transaction.execute("INSERT INTO users VALUES (?, ?, ?, ?, ?, ?, ?, ?)", _row(record))
                transaction.executemany(
                    "INSERT INTO history VALUES (?, ?, ?, ?)",
                    ((record.user_id, item.item_id, item.weight, item.time_us) for item in record.history),
                )
                count += 1
            text = msgspec.json.encode(population).decode()
            transaction.execute("INSERT INTO facts VALUES ('population', ?)", [text])
        return count

    def scan(self) -> Iterator[UserRecord]:
        """Yield every record by user id, from one snapshot of the file."""
        with _translated(self._path), closing(_connect(self._path)) as reader:
            reader.execute("BEGIN")
            groups = groupby(reader.execute(_ALL_HISTORY), key=lambda row: row[0])
            owner, items = next(groups, (None, iter(())))
            for row in reader.execute(_ALL_USERS):
                history = []
                if owner == row[0]:
                    history = [HistoryItem(*item[1:]) for item in items]
                    owner, items = next(groups, (None, iter(())))
                yield _record(row, history)

    async def aclose(self) -> None:
        """Close the file."""
        self._connection.close()

    def _prepare(self) -> None:
        """Make the tables unless they are there. Several processes may get here at once; one of them does it."""
        self._connection.execute(f"PRAGMA busy_timeout = {_OPENING_TIMEOUT_MS}")
        self._connection.execute("PRAGMA journal_mode = WAL")
        with self._connection as transaction:
            transaction.execute("BEGIN IMMEDIATE")
            (version,) = transaction.execute("PRAGMA user_version").fetchone()
            (tables,) = transaction.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            if version != SCHEMA_VERSION and (version or tables):
                raise StoreFormatError(f"{self._path} holds a store of version {version}; this program reads version 1")
            if not tables:
                for statement in _SCHEMA.split(";"):
                    transaction.execute(statement)
                transaction.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self._connection.execute("PRAGMA busy_timeout = 0")


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=_OPENING_TIMEOUT_MS / 1000, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def _record(row: tuple[Any, ...], history: list[HistoryItem]) -> UserRecord:
    user_id, age_group, views, clicks, purchases, sessions, session_ms, as_of_us = row
    return UserRecord(user_id, age_group, views, clicks, purchases, sessions, session_ms, as_of_us, history)


def _row(record: UserRecord) -> tuple[str | int | None, ...]:
    return (
        record.user_id,
        record.age_group,
        record.views,
        record.clicks,
        record.purchases,
        record.sessions,
        record.session_ms,
        record.as_of_us,
    )


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into the port's."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StoreUnavailableError(f"{path}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise StoreFormatError(f"{path}: {error}") from error
