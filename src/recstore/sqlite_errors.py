"""SQLite's errors in the words of the port."""

import sqlite3

import msgspec

from recstore.port import StoreError, StoreFormatError, StoreUnavailableError
from recstore.translation import TranslatedErrors

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


class TranslatedSqliteErrors(TranslatedErrors):
    """Turns SQLite's errors into the port's."""

    def translate(self, error: BaseException) -> StoreError | None:
        """Return the port's error for an error of SQLite, or of the decoder of its values."""
        if not isinstance(error, sqlite3.Error | msgspec.MsgspecError):
            return None
        # Reads do not look whether the store was closed; SQLite raises for a closed connection.
        self.check_open()
        # The low byte is the primary code; errors of the sqlite3 module itself have none.
        remedy = _REMEDIES.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
        if remedy:
            return StoreUnavailableError(f"{self.place}: {error}; {remedy}")
        return StoreFormatError(f"{self.place}: {error}; {REFILL}")
