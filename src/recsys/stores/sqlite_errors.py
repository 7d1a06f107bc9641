"""SQLite's errors in the words of the port."""

import sqlite3
from pathlib import Path
from types import TracebackType

import msgspec

from recsys.stores.port import StoreError, StoreFormatError, StoreUnavailableError

REFILL = "run ./run.sh train to make one"

# Primary result codes (https://www.sqlite.org/rescode.html) after which the same call may succeed later, and what helps.
_REMEDIES = {
    sqlite3.SQLITE_BUSY: "another process holds it; try again",
    sqlite3.SQLITE_LOCKED: "another process holds it; try again",
    sqlite3.SQLITE_PROTOCOL: "another process holds it; try again",
    sqlite3.SQLITE_FULL: "free some disk space",
    sqlite3.SQLITE_IOERR: "check the disk and its free space",
    sqlite3.SQLITE_READONLY: "make the file and its folder writable",
    sqlite3.SQLITE_CANTOPEN: "check that its folder exists and is writable",
    sqlite3.SQLITE_NOMEM: "give the process more memory",
}


class TranslatedSqliteErrors:
    """Turn SQLite's errors into `StoreError`s. A class, because `contextmanager` would cost each read 1 us."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.closed = False

    def check_open(self) -> None:
        """Raise `StoreUnavailableError` if the store was closed."""
        if self.closed:
            raise StoreUnavailableError(f"{self._path} was closed")

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, sqlite3.Error | msgspec.MsgspecError):
            # Reads do not look whether the store was closed; SQLite raises for a closed connection.
            self.check_open()
            raise self._translate(error) from error

    def _translate(self, error: sqlite3.Error | msgspec.MsgspecError) -> StoreError:
        # The low byte is the primary code; errors of the sqlite3 module itself have none.
        remedy = _REMEDIES.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
        if remedy:
            return StoreUnavailableError(f"{self._path}: {error}; {remedy}")
        return StoreFormatError(f"{self._path}: {error}; {REFILL}")
