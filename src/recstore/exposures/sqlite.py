"""The exposure log in the file of a SQLite feature store."""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import groupby
from pathlib import Path

import msgspec

from recstore.erasures import hash_user
from recstore.exposures import sqlite_groups
from recstore.exposures.join import DAY_S, join
from recstore.exposures.log import MOST_PER_USER, RETENTION_S
from recstore.exposures.records import Action, Entry, Exposure, ExposureGroup, ExposureOutcome
from recstore.port import EventOutcome
from recstore.sqlite import REFUSED
from recstore.sqlite_file import SqliteFile

_PRUNE_EVERY_S, _PRUNE_SHARE = 60.0, 0.005
_ANY_ERASURE = "SELECT EXISTS (SELECT 1 FROM erasures)"
_NOTE_ACTION = f"INSERT INTO actions SELECT ?1, ?3, ?2, ?4 WHERE NOT EXISTS ({REFUSED}) ON CONFLICT DO NOTHING"
# Rows are in the order of their arrival. A late row stays until the rows before it are too old as well.
_FORGET_OLD = """
DELETE FROM {table} WHERE rowid < ifnull(
    (SELECT rowid FROM {table} WHERE time_us >= ?1 ORDER BY rowid LIMIT 1), (SELECT 1 + max(rowid) FROM {table}))
"""
_SPARE_ACTIONS = """
SELECT user, key FROM (
    SELECT user, key, row_number() OVER (PARTITION BY user ORDER BY time_us DESC, key DESC) AS place FROM actions
    WHERE user IN (SELECT user FROM actions GROUP BY user HAVING count(*) > ?1))
WHERE place > ?1
"""
_FORGET_ACTION = "DELETE FROM actions WHERE user = ? AND key = ?"
_SPLIT = "CREATE TEMP TABLE answers (user TEXT NOT NULL, body BLOB NOT NULL)"

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
        """Keep *entries* in one transaction: about 0.2 ms, plus 6 us for each event and 0.4 us for each answer."""
        return await self._file.run(self._note, entries)

    async def scan(self, *, window_s: float = DAY_S) -> AsyncIterator[ExposureOutcome]:
        """Yield every exposure with its outcomes, from one snapshot of the file. SQLite sorts in temporary files."""
        with self._file.reading() as reader:
            reader.execute(_SPLIT)
            reader.execute("BEGIN")
            for group in sqlite_groups.read_groups(reader):
                answers = ((each.user_id, _encode(each)) for each in group.exposures())
                reader.executemany("INSERT INTO answers VALUES (?, ?)", answers)
            # It sorts no bodies, which are longer.
            rows = reader.execute("SELECT user, rowid FROM answers ORDER BY user, rowid")
            for user, own in groupby(rows, key=lambda row: row[0]):
                bodies = (reader.execute("SELECT body FROM answers WHERE rowid = ?", row[1:]) for row in own)
                # The first of several answers with one id counts.
                exposures = dict[str, Exposure]()
                for ((body,),) in bodies:
                    exposure = _exposure(body)
                    exposures.setdefault(exposure.exposure_id, exposure)
                found = reader.execute("SELECT body FROM actions WHERE user = ?", [hash_user(user)])
                actions = [_action(body) for (body,) in found]
                for each in join(list(exposures.values()), actions, window_us=round(window_s * 1e6)):
                    yield each

    async def aclose(self) -> None:
        """Close the file after the write in progress has ended."""
        await self._file.aclose()

    def _note(self, entries: Sequence[Entry]) -> list[EventOutcome]:
        outcomes: list[EventOutcome] = []
        with self._file.transaction() as transaction:
            (erases,) = transaction.execute(_ANY_ERASURE).fetchone()
            for entry in entries:
                if isinstance(entry, Action):
                    outcomes.append(self._note_action(entry))
                else:
                    group = ExposureGroup.of(entry) if isinstance(entry, Exposure) else entry
                    outcomes += self._note_group(group, self._refused(group) if erases else set())
        self._prune()
        return outcomes

    def _note_action(self, action: Action) -> EventOutcome:
        own = (hash_user(action.user_id), action.time_us)
        if self._file.writer.execute(_NOTE_ACTION, (*own, action.event, _encode(action).decode())).rowcount:
            return EventOutcome.ACCEPTED
        refused = self._file.writer.execute(REFUSED, own).fetchone()
        return EventOutcome.ERASED if refused else EventOutcome.REPEATED

    def _note_group(self, group: ExposureGroup, refused: set[int]) -> list[EventOutcome]:
        count = len(group.user_ids)
        rest = group.without(refused) if refused else group
        is_new = len(refused) < count and sqlite_groups.keep_group(self._file.writer, rest)
        outcomes = [EventOutcome.ACCEPTED if is_new else EventOutcome.REPEATED] * count
        for place in refused:
            outcomes[place] = EventOutcome.ERASED
        return outcomes

    def _refused(self, group: ExposureGroup) -> set[int]:
        """Return the places of the answers whose users are erased."""
        answers = enumerate(zip(group.user_ids, group.times_us, strict=True))
        return {
            place
            for place, (user_id, time_us) in answers
            if self._file.writer.execute(REFUSED, (hash_user(user_id), time_us)).fetchone()
        }

    def _prune(self) -> None:
        """Delete old entries, and those beyond the limit of a user, at most once a minute and in 0.5 % of the time."""
        now = self._clock()
        if self._pruned <= now < self._pruned + self._pause_s:
            return
        began, self._pruned = time.monotonic(), now
        # Counting reads the whole tables, so other writers do not wait for it.
        with self._file.errors:
            heavy = sqlite_groups.list_heavy_users(self._file.writer, self._most_per_user)
            spare = self._file.writer.execute(_SPARE_ACTIONS, [self._most_per_user]).fetchall()
        with self._file.transaction() as transaction:
            for table in ("exposures", "actions"):
                transaction.execute(_FORGET_OLD.format(table=table), [round((now - self._retention_s) * 1e6)])
            sqlite_groups.limit_users(transaction, heavy, self._most_per_user)
            transaction.executemany(_FORGET_ACTION, spare)
        self._pause_s = max(_PRUNE_EVERY_S, (time.monotonic() - began) / _PRUNE_SHARE)
