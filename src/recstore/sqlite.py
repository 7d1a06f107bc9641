"""
A feature store in one SQLite file, the default on one machine.

Write-ahead logging lets several processes read while another writes. Reads run on the event loop, because a look-up
takes tens of microseconds, less than a hand-over to a thread. A read never waits for a lock: it raises
`StoreUnavailableError` immediately. Writes wait for other writers, so they use a separate thread and connection, and
events do not wait while the log is copied (`sqlite_log`).
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import chain, groupby
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import astuple

from recstore.counters import (
    DEDUPLICATION_WINDOW_S,
    count_interaction,
    countable,
    new_record,
    split_ties,
    update_record,
)
from recstore.erasures import Erasure, Removed, digest_user, hash_user
from recstore.port import QUICK_BYTES, EventOutcome, StoreFormatError, StoreUnavailableError
from recstore.sqlite_answers import USER_IDS, remove_answers_to
from recstore.sqlite_errors import REFILL
from recstore.sqlite_file import SqliteFile, connect
from recstore.sqlite_log import WriteAheadLog
from recsys.contracts.wire import Features
from recsys.declaration.types import Declaration
from recsys.records import HistoryItem, Interaction, KnownUser, UserAttribute, UserRecord, UserUpdate

Fact = TypeVar("Fact", bound=Struct)
Event = TypeVar("Event", Interaction, UserUpdate)

_PRUNE_EVERY_S = 60.0
# At this many pages (64 MiB) of log a writer checkpoints itself, so that the log cannot grow without limit.
_LONGEST_LOG = 16_384

# One statement sees one snapshot, so a user's counters and history belong together. A subquery with a limit keeps its
# order, and json_group_array keeps the order of the subquery.
# Ties that are not above 0 form the second array.
_KNOWN_USER = """
SELECT *, (SELECT json_array(
        json_group_array(item_id) FILTER (WHERE weight > 0), json_group_array(item_id) FILTER (WHERE weight <= 0))
    FROM (SELECT item_id, weight FROM history WHERE user_id = ?1 ORDER BY time_us DESC, item_id LIMIT ?2))
FROM users WHERE user_id = ?1
"""
_ALL_USERS = "SELECT * FROM users ORDER BY user_id"
_ALL_HISTORY = "SELECT user_id, item_id, weight, time_us FROM history ORDER BY user_id, time_us DESC, item_id"
_HISTORY = "SELECT item_id, weight, time_us FROM history WHERE user_id = ? ORDER BY time_us DESC, item_id"
_INSERT_USER = "INSERT INTO users VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_INSERT_TIE = "INSERT INTO history VALUES (?, ?, ?, ?)"
REFUSED = "SELECT 1 FROM erasures WHERE user = ?1 AND (NOT readmitted OR at_us > ?2)"
_NOTE_EVENT = f"""
INSERT INTO events SELECT ?1, ?3, ?4 WHERE NOT EXISTS ({REFUSED})
ON CONFLICT DO UPDATE SET seen_us = excluded.seen_us WHERE seen_us <= ?4 - ?5
"""
_NOTE_ERASURE = """
INSERT INTO erasures VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET at_us = excluded.at_us, readmitted = excluded.readmitted
WHERE excluded.at_us > at_us
"""
_ERASED = "SELECT user FROM erasures WHERE NOT readmitted"
_USER_IDS = f"SELECT user_id FROM users UNION {USER_IDS}"  # noqa: S608 - both parts are constants
_LEFT_OVER, _FACT = "left_over", "SELECT value FROM facts WHERE name = ?"
_NO_ATTRIBUTES = "[]"
_IS_ERASED = f"{_ERASED} AND user = ?"
_COUNT = f"""
{_INSERT_USER} ON CONFLICT DO UPDATE SET
    views = views + excluded.views, clicks = clicks + excluded.clicks, purchases = purchases + excluded.purchases,
    sessions = sessions + excluded.sessions, session_ms = session_ms + excluded.session_ms,
    as_of_us = max(ifnull(as_of_us, 0), excluded.as_of_us)
"""
_UPDATE = f"""
{_INSERT_USER} ON CONFLICT DO UPDATE SET age_group = excluded.age_group, attributes = excluded.attributes
"""
_TIE = f"""
{_INSERT_TIE} ON CONFLICT DO UPDATE SET weight = weight + excluded.weight, time_us = max(time_us, excluded.time_us)
"""

_decode_items = msgspec.json.Decoder(tuple[list[str], list[str]]).decode
_decode_attributes = msgspec.json.Decoder(tuple[UserAttribute, ...]).decode


class SqliteStore:
    """
    Keep records in one SQLite file.

    Args:
        path: The file.
        create: Make the file and its tables if they do not exist.
        window_s: Seconds during which a repeated event is recognised.
        clock: Seconds since the epoch.

    Raises:
        StoreMissingError: the file does not exist, and *create* is off.
        StoreFormatError: the file is not a feature store of this version. It stays unchanged.
        StoreUnavailableError: the file cannot be opened or is locked.
    """

    def __init__(
        self,
        path: Path,
        *,
        create: bool = False,
        window_s: float = DEDUPLICATION_WINDOW_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._window_us = int(window_s * 1_000_000)
        self._clock = clock
        self._pruned = float("-inf")
        self._snapshot_of: asyncio.AbstractEventLoop | None = None
        self._file = SqliteFile(path, create=create, thread="sqlite-writer")
        self._errors, self._writer = self._file.errors, self._file.writer
        with self._errors, contextlib.ExitStack() as opened:
            opened.enter_context(closing(self._writer))
            self._log = opened.enter_context(closing(WriteAheadLog(path)))
            self._reader = opened.enter_context(closing(connect(path)))
            self._writer.execute(f"PRAGMA wal_autocheckpoint = {_LONGEST_LOG}")
            self._reader.execute("PRAGMA busy_timeout = 0")
            opened.pop_all()

    async def read(self, user_ids: Sequence[str], *, history: int) -> list[KnownUser | None]:
        """Return each of *user_ids*; some tens of microseconds for a user with 50 items (docs/adr/0002-feature-store.md)."""
        with self._errors:
            self._share_snapshot()
            return [self._read(user_id, history) for user_id in user_ids]

    async def record(self, user_id: str) -> UserRecord | None:
        """Return the whole record of a user."""
        with self._file.reading() as reader:
            reader.execute("BEGIN")
            row = reader.execute("SELECT * FROM users WHERE user_id = ?", [user_id]).fetchone()
            ties = [HistoryItem(*tie) for tie in reader.execute(_HISTORY, [user_id])]
        return UserRecord(*(*_read_profile(row), *split_ties(ties))) if row else None

    def _share_snapshot(self) -> None:
        """
        Let all reads in one turn of the event loop share the snapshot of the first.

        A snapshot for each read would cost three system calls each (docs/adr/0002-feature-store.md). The snapshot holds
        all events counted before this turn. Reads in the next turn get a new snapshot.
        """
        loop = asyncio.get_running_loop()
        if self._snapshot_of is not loop:
            # An event loop that was closed in the middle of a turn leaves its snapshot open.
            self._end_snapshot()
            self._reader.execute("BEGIN")
            self._snapshot_of = loop
            loop.call_soon(self._end_snapshot)

    def _end_snapshot(self) -> None:
        self._snapshot_of = None
        # The store may have been closed within the turn, and some errors end the transaction.
        with contextlib.suppress(sqlite3.Error):
            if self._reader.in_transaction:
                self._reader.execute("COMMIT")

    def _read(self, user_id: str, history: int) -> KnownUser | None:
        row = self._reader.execute(_KNOWN_USER, (user_id, history)).fetchone()
        if not row:
            return None
        *profile, attributes, items = row
        return KnownUser(*(*profile, _read_attributes(attributes), *_decode_items(items)))

    async def apply(self, interactions: Sequence[Interaction]) -> list[EventOutcome]:
        """Count *interactions* in one transaction: about 0.2 ms, plus 20 us for each."""
        return await self._file.run(self._write, self._count, interactions)

    async def update(self, updates: Sequence[UserUpdate]) -> list[EventOutcome]:
        """Take over the values of *updates* in one transaction."""
        return await self._file.run(self._write, self._update, updates)

    async def population(self) -> Features | None:
        """Return the defaults for unknown users; None before the first `replace`."""
        return self._fact("population", Features)

    async def declaration(self) -> Declaration | None:
        """Return the declaration by which the store was filled."""
        return self._fact("declaration", Declaration)

    def _fact(self, name: str, type_: type[Fact]) -> Fact | None:
        with self._errors:
            row = self._reader.execute(_FACT, [name]).fetchone()
            return msgspec.json.decode(row[0], type=type_) if row else None

    async def verify(self) -> None:
        """
        Read the whole file: every page must be sound, and the store must have been filled.

        Raises:
            StoreFormatError: the file is damaged, or was never filled.

        Cost: about 3 ms a megabyte.
        """
        await asyncio.to_thread(self._verify)
        if await self.population() is None:
            raise StoreFormatError(f"{self._path}: this feature store was never filled; {REFILL}")

    def _verify(self) -> None:
        with self._file.reading() as reader:
            (found,) = reader.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise StoreFormatError(f"{self._path}: the file is damaged ({' '.join(found.split())}); {REFILL}")

    async def replace(
        self, records: Iterable[UserRecord], *, population: Features, declaration: Declaration | None = None
    ) -> int:
        """Replace the content by *records* in one transaction; about 2 us a history item."""
        facts = {"population": population, **({"declaration": declaration} if declaration else {})}
        return await self._file.run(self._replace, records, facts)

    async def scan(self) -> AsyncIterator[UserRecord]:
        """Yield every record by user id, from one snapshot of the file."""
        with self._file.reading() as reader:
            reader.execute("BEGIN")
            groups = groupby(reader.execute(_ALL_HISTORY), key=lambda row: row[0])
            owner, items = next(groups, (None, iter(())))
            for row in reader.execute(_ALL_USERS):
                history = []
                if owner == row[0]:
                    history = [HistoryItem(*item[1:]) for item in items]
                    owner, items = next(groups, (None, iter(())))
                yield UserRecord(*(*_read_profile(row), *split_ties(history)))

    async def adopt(self, erasures: Iterable[Erasure]) -> Removed:
        """Take over newer *erasures* in one transaction; about 2 us a user of the store if there are any."""
        return await self._file.run(self._adopt, list(erasures))

    async def erase(self, user_id: str, *, at_us: int) -> Removed:
        """Remove a user in one transaction, and empty the write-ahead log."""
        return await self._file.run(self._adopt, [Erasure(digest_user(user_id), at_us)], user_id)

    async def erasures(self) -> list[Erasure]:
        """Return the erasures, from one snapshot of the file."""
        with self._file.reading() as reader:
            found = reader.execute("SELECT * FROM erasures").fetchall()
        return [Erasure(user.hex(), at_us, bool(readmitted)) for user, at_us, readmitted in found]

    async def is_scrubbed(self) -> bool:
        """Tell whether the file was rewritten since the last erasure."""
        with self._file.reading() as reader:
            return not reader.execute("SELECT 1 FROM facts WHERE name = ?", [_LEFT_OVER]).fetchone()

    async def scrub(self, *, quickly: bool = False) -> bool:
        """Rewrite the file, and empty the write-ahead log; about 10 ms of CPU a megabyte."""
        if not await self._file.run(self._rewrite, quickly):
            return False
        if not await asyncio.wrap_future(self._log.empty()):
            raise StoreUnavailableError(f"{self._path}: another process reads an older state of it; try again")
        return True

    async def aclose(self) -> None:
        """Close the file after the write in progress has ended."""
        await self._file.aclose()
        await asyncio.to_thread(self._log.close)
        self._reader.close()

    def _write(self, write: Callable[[Event], EventOutcome], told: Sequence[Event]) -> list[EventOutcome]:
        """Call *write* with each of *told* in one transaction."""
        with self._file.transaction():
            self._prune()
            outcomes = [write(each) for each in told]
        self._log.copy_soon()
        return outcomes

    def _count(self, interaction: Interaction) -> EventOutcome:
        now_us, user = int(self._clock() * 1_000_000), hash_user(interaction.user_id)
        mark = (user, interaction.time_us, interaction.digest(), now_us, self._window_us)
        if not self._writer.execute(_NOTE_EVENT, mark).rowcount:
            refused = self._writer.execute(REFUSED, (user, interaction.time_us)).fetchone()
            return EventOutcome.ERASED if refused else EventOutcome.REPEATED
        record = count_interaction(new_record(interaction.user_id), interaction)
        self._writer.execute(_COUNT, _profile(record))
        self._writer.executemany(_TIE, _ties(record))
        return EventOutcome.ACCEPTED

    def _update(self, update: UserUpdate) -> EventOutcome:
        user = hash_user(update.user_id)
        if self._writer.execute(REFUSED, (user, update.at_us)).fetchone():
            return EventOutcome.ERASED
        row = self._writer.execute("SELECT * FROM users WHERE user_id = ?", [update.user_id]).fetchone()
        before = UserRecord(*_read_profile(row)) if row else None
        after = update_record(before or new_record(update.user_id), update)
        if after == before:
            return EventOutcome.REPEATED
        self._writer.execute(_UPDATE, _profile(after))
        return EventOutcome.ACCEPTED

    def _adopt(self, erasures: Sequence[Erasure], user_id: str | None = None) -> Removed:
        """Note *erasures*, and remove their users: the user with *user_id* if it is given, else all users with a digest."""
        with self._file.transaction() as transaction:
            noted = [each.user for each in erasures if self._note(each) or user_id is not None]
            doomed = {user for user in noted if transaction.execute(_IS_ERASED, [bytes.fromhex(user)]).fetchone()}
            all_ids = (row[0] for row in transaction.execute(_USER_IDS)) if doomed else ()
            user_ids = all_ids if user_id is None else [user_id]
            named = {digest: each for each in user_ids if (digest := digest_user(each)) in doomed}
            removed = sum((self._remove(user, named.get(user)) for user in doomed), Removed())
            if doomed:
                transaction.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", [_LEFT_OVER, str(time.time_ns())])
        if doomed:
            self._log.empty()
        return removed

    def _note(self, erasure: Erasure) -> bool:
        row = (bytes.fromhex(erasure.user), erasure.at_us, erasure.readmitted)
        return bool(self._writer.execute(_NOTE_ERASURE, row).rowcount)

    def _remove(self, user: str, user_id: str | None) -> Removed:
        events = self._writer.execute("DELETE FROM events WHERE user = ?", [bytes.fromhex(user)]).rowcount
        users = self._writer.execute("DELETE FROM users WHERE user_id = ?", [user_id]).rowcount
        items = self._writer.execute("DELETE FROM history WHERE user_id = ?", [user_id]).rowcount
        exposures = remove_answers_to(self._writer, user_id) if user_id is not None else 0
        actions = self._writer.execute("DELETE FROM actions WHERE user = ?", [bytes.fromhex(user)]).rowcount
        return Removed(users, items, events, exposures, actions)

    def _rewrite(self, quickly: bool) -> bool:  # noqa: FBT001 - a thread calls it
        self._file.check_place()
        if quickly and self._path.stat().st_size > QUICK_BYTES:
            return False
        with self._errors:
            noted = self._writer.execute(_FACT, [_LEFT_OVER]).fetchone()
            self._writer.execute("VACUUM")
            # An erasure since then, by another process, needs another rewriting.
            self._writer.execute("DELETE FROM facts WHERE name = ? AND value = ?", [_LEFT_OVER, noted and noted[0]])
        return True

    def _prune(self) -> None:
        """Delete events older than the window, at most once a minute."""
        now = self._clock()
        if not self._pruned <= now < self._pruned + _PRUNE_EVERY_S:
            self._pruned = now
            self._writer.execute("DELETE FROM events WHERE seen_us <= ?", [int(now * 1_000_000) - self._window_us])

    def _replace(self, records: Iterable[UserRecord], facts: Mapping[str, Struct]) -> int:
        count = 0
        with self._file.transaction() as transaction:
            for table in ("users", "history", "events"):
                transaction.execute(f"DELETE FROM {table}")  # noqa: S608 - the names stand in the line above
            erased = {user.hex() for (user,) in transaction.execute(_ERASED)}
            for record in countable(records):
                if erased and digest_user(record.user_id) in erased:
                    continue
                transaction.execute(_INSERT_USER, _profile(record))
                transaction.executemany(_INSERT_TIE, _ties(record))
                count += 1
            transaction.execute("DELETE FROM facts WHERE name <> ?", [_LEFT_OVER])
            rows = [(name, msgspec.json.encode(fact).decode()) for name, fact in facts.items()]
            transaction.executemany("INSERT INTO facts VALUES (?, ?)", rows)
        return count


def _profile(record: UserRecord) -> tuple[Any, ...]:
    """Return the row of *record* in the table of users."""
    *fields, attributes, _, _ = astuple(record)
    return *fields, msgspec.json.encode(attributes).decode() if attributes else _NO_ATTRIBUTES


def _read_profile(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the fields of `Profile` in a *row* of the table of users."""
    return *row[:-1], _read_attributes(row[-1])


def _read_attributes(text: str) -> tuple[UserAttribute, ...]:
    return () if text == _NO_ATTRIBUTES else _decode_attributes(text)


def _ties(record: UserRecord) -> Iterator[tuple[str, str, float, int]]:
    items = chain(record.history, record.avoided)
    return ((record.user_id, item.item_id, item.weight, item.time_us) for item in items)
