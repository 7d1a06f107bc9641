"""The file of a SQLite feature store: its tables, and how connections to it are opened and checked."""

import asyncio
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TypeVar, TypeVarTuple

from recstore.port import StoreFormatError, StoreMissingError, StoreUnavailableError
from recstore.sqlite_errors import REFILL, TranslatedSqliteErrors

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

SCHEMA_VERSION = 6
_LOCK_TIMEOUT_MS = 5000
_RETRY_S = 0.005

_SCHEMA = """
CREATE TABLE users (
    user_id TEXT PRIMARY KEY, age_group TEXT NOT NULL, views INTEGER NOT NULL, clicks INTEGER NOT NULL,
    purchases INTEGER NOT NULL, sessions INTEGER NOT NULL, session_ms INTEGER NOT NULL, as_of_us INTEGER,
    attributes TEXT NOT NULL DEFAULT '[]'
) STRICT, WITHOUT ROWID;
CREATE TABLE history (
    user_id TEXT NOT NULL, item_id TEXT NOT NULL, weight REAL NOT NULL, time_us INTEGER NOT NULL,
    PRIMARY KEY (user_id, item_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX history_newest ON history (user_id, time_us DESC, item_id, weight);
CREATE TABLE events (
    user BLOB NOT NULL, event BLOB NOT NULL, seen_us INTEGER NOT NULL, PRIMARY KEY (user, event)
) STRICT, WITHOUT ROWID;
CREATE INDEX events_oldest ON events (seen_us);
CREATE TABLE erasures (
    user BLOB PRIMARY KEY, at_us INTEGER NOT NULL, readmitted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE items (
    item_id TEXT PRIMARY KEY, description TEXT NOT NULL, described_us INTEGER NOT NULL, available INTEGER NOT NULL,
    available_us INTEGER NOT NULL, revision INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX items_changed ON items (revision);
CREATE TABLE exposures (
    key TEXT PRIMARY KEY, time_us INTEGER NOT NULL, users TEXT NOT NULL, body TEXT NOT NULL
) STRICT;
CREATE TABLE actions (
    user BLOB NOT NULL, key TEXT NOT NULL, time_us INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (user, key)
) STRICT;
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID
"""
_STATEMENTS = [" ".join(statement.split()) for statement in _SCHEMA.split(";")]


def _making(*names: str) -> list[str]:
    return [each for each in _STATEMENTS if each.split()[2].startswith(names)]


# The tables of former versions, and the statements that turn each version into the next. Version 1 knew the events of all
# users by their source and id. They cannot be assigned to users, so they are dropped.
_FORMER_TABLES = {1: {"users", "history", "events", "facts"}}
_FORMER_TABLES[2] = {*_FORMER_TABLES[1], "erasures", "items"}
_FORMER_TABLES[3] = _FORMER_TABLES[4] = _FORMER_TABLES[5] = {*_FORMER_TABLES[2], "exposures", "actions"}
# Versions 3 to 5 had a row for each exposure.
_GROUP_EXPOSURES = [
    "ALTER TABLE exposures RENAME TO former",
    *_making("exposures"),
    """
    INSERT INTO exposures SELECT
        length(body ->> 1) || '/' || (body ->> 1) || '/' || key, time_us, json_array(body ->> 1),
        json_array(
            json_array(
                json_array(key), json_array(time_us), json_array(json(body -> 3)), json_array(body ->> 8),
                json_array(0)),
            json_array(json_array(body ->> 4, body ->> 5, body ->> 6, body ->> 7, json(ifnull(body -> 9, 'false')))))
    FROM former ORDER BY rowid
    """,
    "DROP TABLE former",
]
_CONVERSIONS = {
    1: ["DROP TABLE events", *_making("events", "erasures", "items")],
    2: _making("exposures", "actions"),
    3: ["ALTER TABLE users ADD COLUMN attributes TEXT NOT NULL DEFAULT '[]'"],
    # Version 5 had another index of exposures.
    4: [],
    5: _GROUP_EXPOSURES,
}


class SqliteFile:
    """
    A file that one thread of this process writes into.

    Args:
        path: The file.
        create: Make the file and its tables if they do not exist.
        thread: Name of the thread.

    Attributes:
        writer: The connection of the thread.
        errors: Turns SQLite's errors into the port's.

    Raises:
        StoreError: as for `SqliteStore`.
    """

    def __init__(self, path: Path, *, create: bool = False, thread: str) -> None:
        self._path = path
        self.errors = TranslatedSqliteErrors(path)
        _check_file(path, create=create)
        with self.errors, ExitStack() as opened:
            self.writer = opened.enter_context(closing(connect(path, create=create)))
            _prepare(self.writer, path, create=create)
            opened.pop_all()
        self._identities = self._identify()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=thread)

    async def run(self, call: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Return what *call* returns on the thread."""
        self.errors.check_open()
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write in one transaction, which ends with the block."""
        self.check_place()
        with self.errors, self.writer as transaction:
            transaction.execute("BEGIN IMMEDIATE")
            yield transaction

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Open another connection for the block."""
        self.errors.check_open()
        with self.errors, closing(connect(self._path)) as reader:
            yield reader

    def check_place(self) -> None:
        """Refuse to write into a file that the next start will not find: the changes would be lost."""
        if self._identify() != self._identities:
            raise StoreUnavailableError(
                f"{self._path}: the file or its -wal was removed or replaced while in use; restart"
            )

    def _identify(self) -> list[tuple[int, int] | None]:
        return [_identify(Path(f"{self._path}{suffix}")) for suffix in ("", "-wal")]

    async def aclose(self) -> None:
        """Close the connection after the write in progress has ended."""
        self.errors.closed = True
        await asyncio.to_thread(self._thread.shutdown)
        self.writer.close()


def _check_file(path: Path, *, create: bool) -> None:
    """Refuse a path without a regular file. SQLite's own messages do not name the reason."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        if create:
            return
        raise StoreMissingError(f"{path}: no such feature store; {REFILL}, or check the path") from error
    except OSError as error:
        raise StoreFormatError(f"{path}: cannot be opened: {error.strerror}; check the path") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise StoreFormatError(f"{path}: is {kind} and cannot be a feature store; check the path")


def _identify(path: Path) -> tuple[int, int] | None:
    """Return the identity of the file at *path*, which a file that replaces it does not have; None without a file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _prepare(connection: sqlite3.Connection, path: Path, *, create: bool) -> None:
    """Make the tables if they are missing and wanted, and check them. A foreign file is not changed."""
    if not (create and _is_blank(connection)):
        _migrate(connection)
        _check_schema(connection, path)
    _use_write_ahead_log(connection)
    if create:
        _make_tables(connection)
    # The first statement in the new mode makes the log.
    _check_schema(connection, path)


def _is_blank(connection: sqlite3.Connection) -> bool:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    return not version and not tables


def _make_tables(connection: sqlite3.Connection) -> None:
    """Make the tables. Several processes may get here together; the first to get the lock does it."""
    with connection as transaction:
        transaction.execute("BEGIN IMMEDIATE")
        if _is_blank(transaction):
            for statement in _STATEMENTS:
                transaction.execute(statement)
            transaction.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _migrate(connection: sqlite3.Connection) -> None:
    """Turn the tables of a former version into those of this version."""
    with connection as transaction:
        if not _former_version(transaction):
            return
        transaction.execute("BEGIN IMMEDIATE")
        # Several processes may get here together; the first to get the lock does it.
        while version := _former_version(transaction):
            for statement in _CONVERSIONS[version]:
                transaction.execute(statement)
            transaction.execute(f"PRAGMA user_version = {version + 1}")


def _former_version(connection: sqlite3.Connection) -> int | None:
    """Return the version of the tables if the file is a feature store of a former version, and not another program's."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    return version if tables == _FORMER_TABLES.get(version) else None


def _check_schema(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    found = {_unspaced(sql) for (sql,) in connection.execute("SELECT sql FROM sqlite_schema WHERE sql != ''")}
    if not version and not found:
        raise StoreFormatError(f"{path}: the file is empty, not a feature store; {REFILL}")
    if version != SCHEMA_VERSION:
        raise StoreFormatError(
            f"{path}: holds version {version} of the tables, or another program's; "
            f"this program reads version {SCHEMA_VERSION}; check the path"
        )
    if missing := [statement for statement in _STATEMENTS if _unspaced(statement) not in found]:
        name = " ".join(missing[0].split()[1:3]).lower()
        raise StoreFormatError(f"{path}: {name} is missing or another program's; check the path")


def _unspaced(statement: str) -> str:
    """Return *statement* without spaces, because SQLite places them differently when it adds a column."""
    return "".join(statement.split())


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """
    Switch the file to a write-ahead log.

    Two connections that read the mode and then both want an exclusive lock would wait for each other. SQLite then
    reports one of them as locked immediately, in spite of its timeout, so this function retries.
    """
    ends = time.monotonic() + _LOCK_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > ends:
                raise
            time.sleep(_RETRY_S)
        else:
            return


def connect(path: Path, *, create: bool = False) -> sqlite3.Connection:
    """Return a connection to the file at *path*; without *create*, SQLite makes no file."""
    address = f"{path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
    connection = sqlite3.connect(
        address, uri=True, timeout=_LOCK_TIMEOUT_MS / 1000, isolation_level=None, check_same_thread=False
    )
    try:
        # A killed process loses nothing. A machine that loses power may lose the last events, here and in the broker.
        connection.execute("PRAGMA synchronous = NORMAL")
        # Removed rows are overwritten with zeros. Copies may remain in unused parts of pages, until `scrub`.
        connection.execute("PRAGMA secure_delete = ON")
    except sqlite3.Error:
        # A connection left open would keep its -wal and -shm files beside the damaged file.
        connection.close()
        raise
    return connection
