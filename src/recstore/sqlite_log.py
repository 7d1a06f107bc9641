"""The write-ahead log of a SQLite feature store."""

import contextlib
import sqlite3
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from recstore.sqlite_file import connect

_CHECKPOINT_EVERY_S = 0.25


class WriteAheadLog:
    """
    Copies the log into the file. Copying waits for the disk, so it has its own thread and connection.

    Args:
        path: The file, which has a log.
    """

    def __init__(self, path: Path) -> None:
        self._next_checkpoint = float("-inf")
        self._connection = connect(path)
        # A connection does not know of the log until it reads the file.
        self._connection.execute("SELECT count(*) FROM facts").fetchone()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite-checkpoint")

    def copy_soon(self) -> None:
        """Copy the log on the thread, unless it was copied in the last quarter of a second."""
        if time.monotonic() >= self._next_checkpoint:
            self._next_checkpoint = time.monotonic() + _CHECKPOINT_EVERY_S
            self._thread.submit(self._copy)

    def empty(self) -> Future[bool]:
        """Copy the log on the thread and cut it to no bytes; the result is False if a process reads an older state."""
        return self._thread.submit(self._empty)

    def close(self) -> None:
        """Close the connection after the copy in progress has ended."""
        self._thread.shutdown()
        self._connection.close()

    def _copy(self) -> None:
        # Another process may be checkpointing, and then nothing is left to do. A full disk is reported by the next write.
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _empty(self) -> bool:
        try:
            ((is_busy, _, _),) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error:
            return False
        return not is_busy
