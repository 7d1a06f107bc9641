"""The exposure log in the file of a SQLite feature store."""

import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import groupby
from pathlib import Path

import msgspec

from recstore.erasures import hash_user
from recstore.exposures.join import DAY_S, join
from recstore.exposures.log import MOST_PER_USER, RETENTION_S
from recstore.exposures.records import Action, Entry, Exposure, ExposureOutcome
from recstore.port import EventOutcome
from recstore.sqlite import REFUSED
from recstore.sqlite_file import SqliteFile

_PRUNE_EVERY_S, _PRUNE_SHARE = 60.0, 0.005
_TABLES = {Exposure: "exposures", Action: "actions"}
_NOTE = {
    kind: f"INSERT INTO {table} SELECT ?1, ?3, ?2, ?4 WHERE NOT EXISTS ({REFUSED}) ON CONFLICT DO NOTHING"
    for kind, table in _TABLES.items()
}
# Rows are in the order of their arrival. A late row stays until the rows before it are too old as well.
_FORGET_OLD = """
DELETE FROM {table} WHERE rowid < ifnull(
    (SELECT rowid FROM {table} WHERE time_us >= ?1 ORDER BY rowid LIMIT 1), (SELECT 1 + max(rowid) FROM {table}))
"""
_SPARE = """
SELECT user, key FROM (
    SELECT user, key, row_number() OVER (PARTITION BY user ORDER BY time_us DESC, key DESC) AS place FROM {table}
    WHERE user IN (SELECT user FROM {table} GROUP BY user HAVING count(*) > ?1))
WHERE place > ?1
"""
_FORGET = "DELETE FROM {table} WHERE user = ? AND key = ?"

_Values = tuple[bytes, int, str, str]
_Row = tuple[type[Entry], _Values]

_encode = msgspec.json.Encoder().encode
_exposure, _action = msgspec.json.Decoder(Exposure).decode, msgspec.json.Decoder(Action).decode


class SqliteExposures:
    """
    Keep entries in the tables `exposures` and `actions` of a feature store's file.

    Args:
        path: The file, which exists.
        retention_s: Age in seconds from which entries are deleted.
        most_per_user: Most exposures, and most actions, that the log keeps for each user.
        clock: Seconds since the epoch.

    Raises:
        StoreError: as for `SqliteStore`.
    """

    def __init__(
        self,
        path: Path,
        *,
        retention_s: float = RETENTION_S,
        most_per_user: int = MOST_PER_USER,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._retention_s, self._most_per_user, self._clock = retention_s, most_per_user, clock
        self._pruned, self._pause_s = float("-inf"), _PRUNE_EVERY_S
        self._file = SqliteFile(path, thread="sqlite-exposures")

    async def note(self, entries: Sequence[Entry]) -> list[EventOutcome]:
        """Keep *entries* in one transaction: about 0.2 ms, plus 4 us for each; three times that if one is repeated."""
        return await self._file.run(self._note, entries)

    async def scan(self, *, window_s: float = DAY_S) -> AsyncIterator[ExposureOutcome]:
        """Yield every exposure with its outcomes, from one snapshot of the file."""
        with self._file.reading() as reader:
            reader.execute("BEGIN")
            # SQLite sorts in a temporary file, so it sorts no bodies.
            rows = reader.execute("SELECT user, rowid FROM exposures ORDER BY user")
            for user, own in groupby(rows, key=lambda row: row[0]):
                bodies = (reader.execute("SELECT body FROM exposures WHERE rowid = ?", row[1:]) for row in own)
                exposures = [_exposure(body) for ((body,),) in bodies]
                actions = reader.execute("SELECT body FROM actions WHERE user = ?", [user])
                for each in join(exposures, [_action(body) for (body,) in actions], window_us=round(window_s * 1e6)):
                    yield each

    async def aclose(self) -> None:
        """Close the file after the write in progress has ended."""
        await self._file.aclose()

    def _note(self, entries: Sequence[Entry]) -> list[EventOutcome]:
        rows = [(type(entry), _row(entry)) for entry in entries]
        outcomes = [EventOutcome.ACCEPTED] * len(rows) if self._note_new(rows) else self._note_each(rows)
        self._prune()
        return outcomes

    def _note_new(self, rows: Sequence[_Row]) -> bool:
        """Keep *rows* if the log refuses none of them; else keep none, and return False."""
        with self._file.transaction() as transaction:
            kept = 0
            for kind, statement in _NOTE.items():
                # One call for all rows takes half the time of a call for each, but tells only how many were kept.
                own = [row for each, row in rows if each is kind]
                kept += transaction.executemany(statement, own).rowcount if own else 0
            if kept < len(rows):
                transaction.rollback()
                return False
        return True

    def _note_each(self, rows: Sequence[_Row]) -> list[EventOutcome]:
        with self._file.transaction() as transaction:
            return [_note_one(transaction, *row) for row in rows]

    def _prune(self) -> None:
        """Delete old entries, and those beyond the limit of a user, at most once a minute and in 0.5 % of the time."""
        now = self._clock()
        if self._pruned <= now < self._pruned + self._pause_s:
            return
        began, self._pruned = time.monotonic(), now
        for table in _TABLES.values():
            # Counting reads the whole table, so other writers do not wait for it.
            with self._file.errors:
                spare = self._file.writer.execute(_SPARE.format(table=table), [self._most_per_user]).fetchall()
            with self._file.transaction() as transaction:
                transaction.execute(_FORGET_OLD.format(table=table), [round((now - self._retention_s) * 1e6)])
                transaction.executemany(_FORGET.format(table=table), spare)
        self._pause_s = max(_PRUNE_EVERY_S, (time.monotonic() - began) / _PRUNE_SHARE)


def _row(entry: Entry) -> _Values:
    return hash_user(entry.user_id), entry.time_us, entry.key, _encode(entry).decode()


def _note_one(transaction: sqlite3.Connection, kind: type[Entry], values: _Values) -> EventOutcome:
    if transaction.execute(_NOTE[kind], values).rowcount:
        return EventOutcome.ACCEPTED
    refused = transaction.execute(REFUSED, values[:2]).fetchone()
    return EventOutcome.ERASED if refused else EventOutcome.REPEATED
