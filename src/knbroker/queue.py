"""
Store events, their deliveries and counts in a SQLite file.

Writes that are requested together share a transaction (group commit), and a write is done once it is durable. Reading
a row is short enough for the event loop.

A full disk must not stop deliveries that have begun. The queue therefore holds back disk space (`Reserve`). When a
write finds the disk full, the queue gives the reserve up and accepts no more events; the room is enough to record that
deliveries ended. When the reserve fits on the disk again, the queue accepts events again.

A deleted event must not stay readable in the files. SQLite overwrites what it deletes; copies remain in the log, and
rarely in pages that were split. The queue therefore cleans the files a few seconds after a deletion, when it starts
after a crash, and when it ends. Each cleaning also removes the dead letters about erased topics (`erasures`).
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from msgspec import Struct, json

from chassis.wire.cloudevents import Event
from knbroker import erasures
from knbroker.delivery import Delivery, Failure, Stored
from knbroker.erasures import TopicErasure
from knbroker.figures import BrokerFigures, read_figures
from knbroker.reserve import Reserve
from knbroker.topics import Topic, discard

RESERVE_BYTES: Final = 16 * 2**20
# The reserve covers two checkpoints and two batches: the log may contain that much which the database does not yet.
_BATCH_BYTES: Final = 2 * 2**20
_CHECKPOINT_PAGES: Final = 256
_RECOVERY_PAUSE_S: Final = 1.0
CLEANING_PAUSE_S: Final = 5.0
# Rewriting the file needs as much room as the file takes, and other writes wait for it.
_REWRITTEN_BYTES: Final = 4 * 2**20
_CLEANING_SHARE: Final = 0.01
_NO_ROOM: Final = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}

_SCHEMA: Final = f"""
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES};
PRAGMA secure_delete = ON;
CREATE TABLE IF NOT EXISTS events (
  seq INTEGER PRIMARY KEY, broker TEXT NOT NULL, ttl INTEGER NOT NULL, accepted_at REAL NOT NULL,
  attributes TEXT NOT NULL, headers TEXT NOT NULL, data BLOB
);
-- One row for each Trigger that does not have the event yet; a row with dead_at is a dead letter.
CREATE TABLE IF NOT EXISTS deliveries (
  event INTEGER NOT NULL, trigger TEXT NOT NULL, attempts INTEGER NOT NULL, due_at REAL NOT NULL,
  failure TEXT, dead_at REAL, PRIMARY KEY (event, trigger)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counts (
  what TEXT NOT NULL, who TEXT NOT NULL, value INTEGER NOT NULL, PRIMARY KEY (what, who)
) WITHOUT ROWID;
{erasures.SCHEMA}"""
# A script, because `execute` would run this vacuum for one page.
_SHRINK: Final = "PRAGMA incremental_vacuum(512); PRAGMA wal_checkpoint(TRUNCATE)"
_COUNT: Final = "INSERT INTO counts VALUES (?, ?, 1) ON CONFLICT (what, who) DO UPDATE SET value = value + 1"
_END: Final = "DELETE FROM deliveries WHERE event = ? AND trigger = ?"
_FORGET: Final = "DELETE FROM events WHERE seq = ? AND NOT EXISTS (SELECT 1 FROM deliveries WHERE event = seq)"
_UPDATE: Final = """
UPDATE deliveries SET attempts = ?, due_at = ?, failure = ?, dead_at = ? WHERE event = ? AND trigger = ?
"""
_CHOSEN: Final = """
dead_at IS NOT NULL AND (?1 IS NULL OR trigger = ?1) AND event IN (
  SELECT seq FROM events
  WHERE (?2 IS NULL OR json_extract(attributes, '$.id') IN (SELECT value FROM json_each(?2)))
    AND (?3 IS NULL OR json_extract(attributes, '$.source') = ?3))
"""
# ruff: noqa: S608 - only constants are joined
_REVIVE: Final = f"""
UPDATE deliveries SET attempts = 0, due_at = 0, failure = 'null', dead_at = NULL WHERE {_CHOSEN}
RETURNING event, trigger
"""
_SOURCES: Final = f"""
SELECT DISTINCT json_extract(attributes, '$.id'), json_extract(attributes, '$.source')
FROM deliveries JOIN events ON seq = event WHERE {_CHOSEN}
"""

Statement = tuple[str, Sequence[Any]]


class NoRoomError(Exception):
    """The disk is full, or too full for the reserve. The event is not stored."""


class DiscardedError(Exception):
    """The event was discarded; its delivery ends."""


class DeadLetterChoice(Struct, frozen=True):
    """A choice of dead letters: by Trigger, by event ids, by source; all of them if none of these is given."""

    trigger: str | None = None
    ids: Sequence[str] | None = None
    source: str | None = None

    def values(self) -> list[str | None]:
        """Return the parameters of the SQL statements."""
        return [self.trigger, json.encode(self.ids).decode() if self.ids is not None else None, self.source]


class Queue:
    """
    The file and its pending deliveries.

    Args:
        path: The file; its directory exists.
        triggers: Names of all Triggers. Deliveries of other Triggers are deleted, as a cluster does with a Trigger.
        reserve_bytes: Disk space to hold back.
        cleaning_pause_s: Time from a deletion to the cleaning of the files; longer if cleaning takes more than 1 % of it.
        kept: Types of events whose dead letters stay, also if they are about an erased topic.
    """

    def __init__(
        self,
        path: Path,
        triggers: Iterable[str],
        *,
        reserve_bytes: int = RESERVE_BYTES,
        cleaning_pause_s: float = CLEANING_PAUSE_S,
        kept: Collection[str] = (),
    ) -> None:
        self._kept = kept
        self._path, has_log = path, path.with_name(f"{path.name}-wal").exists()
        # Without a busy timeout: waiting for a lock would stop the event loop.
        self._reader, self._writer = (
            sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0) for _ in "rw"
        )
        # This gives up an earlier process's reserve, so that the next statements have room on a full disk.
        self._reserve = Reserve(path.with_name(f"{path.name}.reserve"), reserve_bytes)
        self._writer.executescript(_SCHEMA)
        known = json.encode(list(triggers)).decode()
        self._writer.execute("DELETE FROM deliveries WHERE trigger NOT IN (SELECT value FROM json_each(?))", [known])
        self._writer.execute("DELETE FROM events WHERE seq NOT IN (SELECT event FROM deliveries)")
        self._reserve.hold()
        self._recover_at = 0.0
        (self._last,) = self._writer.execute("SELECT COALESCE(MAX(seq), 0) FROM events").fetchone()
        # Due times are stored as wall-clock times: the monotonic clock ends with the process.
        self._epoch = time.time() - time.monotonic()
        self._thread, self._lock = ThreadPoolExecutor(1, "queue"), asyncio.Lock()
        self._batch: list[Statement] = []
        self._growing: list[Statement] = []
        self._growing_bytes = 0
        self._commit: asyncio.Task[sqlite3.Error | None] | None = None
        self._least_pause_s = self._pause_s = cleaning_pause_s
        self._cleaning: asyncio.Task[None] | None = None
        if has_log:
            self._clean()

    @property
    def has_room(self) -> bool:
        """Whether the queue accepts events; a full disk stops that."""
        return self._reserve.is_held

    def pending(self) -> list[Delivery]:
        """Return the deliveries that an earlier process left, oldest first, due by the wall clock."""
        rows = self._reader.execute("SELECT * FROM deliveries WHERE dead_at IS NULL ORDER BY event").fetchall()
        return [
            Delivery(event, trigger, attempts, due_at - self._epoch, json.decode(failure, type=Failure | None))
            for event, trigger, attempts, due_at, failure, _ in rows
        ]

    def read(self, seq: int) -> Stored:
        """
        Return a stored event that at least one Trigger does not have yet.

        Raises:
            DiscardedError: The event was discarded.
        """
        found = self._reader.execute("SELECT broker, attributes, data, ttl, headers FROM events WHERE seq = ?", [seq])
        row = found.fetchone()
        if row is None:
            raise DiscardedError
        broker, attributes, data, ttl, headers = row
        return Stored(
            broker, Event(json.decode(attributes), data), ttl, json.decode(headers, type=list[tuple[str, str]])
        )

    async def add(self, stored: Stored, triggers: Sequence[str], *, cause: Delivery | None = None) -> list[Delivery]:
        """
        Store an event for some Triggers. A reply is stored in one transaction with the end of its *cause*.

        Returns:
            A delivery for each Trigger.

        Raises:
            NoRoomError: The disk is full, and the event is not stored.
            sqlite3.Error: The event is not stored.
        """
        if not (self._reserve.is_held or await self._recover()):
            raise NoRoomError
        self._last += 1
        seq, event = self._last, stored.event
        statements: list[Statement] = [(_COUNT, ("accepted", stored.broker))]
        if triggers:
            texts = json.encode(event.attributes).decode(), json.encode(stored.headers).decode()
            row = (seq, stored.broker, stored.ttl, time.time(), *texts, event.data)
            statements.append(("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", row))
        statements += [("INSERT INTO deliveries VALUES (?, ?, 0, 0, 'null', NULL)", (seq, name)) for name in triggers]
        await self._grow(statements + (_ended(cause) if cause else []), size_bytes=len(event.data or b""))
        if cause:
            self._clean_soon()
        return [Delivery(seq, trigger) for trigger in triggers]

    async def end(self, delivery: Delivery, *, erased: TopicErasure | None = None) -> None:
        """Delete a delivery that the subscriber acknowledged, and note the erasure that it reported."""
        await self._write([*_ended(delivery), *([(erasures.NOTE, erased.row())] if erased else [])])
        self._clean_soon()

    async def put(self, delivery: Delivery) -> None:
        """Record a delivery after a failed attempt."""
        failure, dead_at = json.encode(delivery.failure).decode(), time.time() if delivery.is_dead else None
        row = (delivery.attempts, delivery.due_at + self._epoch, failure, dead_at, delivery.event, delivery.trigger)
        await self._write([(_UPDATE, row), (_COUNT, ("failed", delivery.trigger))])
        if delivery.is_dead:
            self._clean_soon()

    async def sources(self, choice: DeadLetterChoice) -> dict[str, list[str]]:
        """Return the sources of the chosen dead letters, by event id."""
        found: dict[str, list[str]] = {}
        for event_id, source in await self._query(_SOURCES, choice.values()):
            found.setdefault(event_id, []).append(source)
        return found

    async def revive(self, choice: DeadLetterChoice) -> list[Delivery]:
        """Turn the chosen dead letters into deliveries, and return these."""
        return [Delivery(event, trigger) for event, trigger in sorted(await self._query(_REVIVE, choice.values()))]

    async def discard(self, topic: Topic) -> int:
        """
        Delete the events about *topic*, waiting ones and dead letters, and rewrite the file; return their number.

        Events about *topic* that become dead letters later are deleted too, until `keep`.

        Raises:
            sqlite3.Error: The file cannot be written.
        """
        await self._write([(erasures.NOTE, TopicErasure.of(topic).row())])
        async with self._lock:
            return await asyncio.get_running_loop().run_in_executor(self._thread, discard, self._writer, topic)

    async def keep(self, topic: Topic) -> None:
        """Keep dead letters about *topic* again."""
        await self._write([(erasures.NOTE, TopicErasure.of(topic, lifted=True).row())])

    async def figures(self, *, letters: int) -> BrokerFigures:
        """Count deliveries, and describe up to *letters* of the newest dead letters."""
        return await read_figures(self._query, letters=letters)

    async def close(self) -> None:
        """Finish the writes in progress, and close the file."""
        async with self._lock:
            if self._cleaning:
                self._cleaning.cancel()
                await asyncio.get_running_loop().run_in_executor(self._thread, self._clean)
            self._thread.shutdown()
            self._reader.close()
            self._writer.close()

    async def _write(self, statements: Iterable[Statement]) -> None:
        """Return once *statements* are durable. They share a transaction with other writes of the same moment."""
        self._batch += statements
        await asyncio.shield(self._committing())

    async def _grow(self, statements: Iterable[Statement], *, size_bytes: int) -> None:
        """Do the same for statements that make the file grow. On a full disk, these fail and the others succeed."""
        while self._growing_bytes and self._growing_bytes + size_bytes > _BATCH_BYTES:
            with contextlib.suppress(sqlite3.Error):
                await asyncio.shield(self._committing())
        self._growing += statements
        self._growing_bytes += size_bytes
        if error := await asyncio.shield(self._committing()):
            raise NoRoomError from error

    def _committing(self) -> "asyncio.Task[sqlite3.Error | None]":
        if self._commit is None:
            self._commit = asyncio.create_task(self._commit_batch())
        return self._commit

    async def _commit_batch(self) -> sqlite3.Error | None:
        """Commit the gathered statements; return the error if the growing ones found no room and the others did."""
        async with self._lock:
            # From here on, new statements gather for the next batch.
            batch, growing, self._batch, self._growing = self._batch, self._growing, [], []
            self._growing_bytes, self._commit = 0, None
            try:
                await self._transact([*batch, *growing])
            except sqlite3.Error as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _NO_ROOM:
                    raise
                self._reserve.release()
                if batch:
                    await self._transact(batch)
                return error
            return None

    async def _transact(self, statements: Sequence[Statement]) -> None:
        try:
            # The statements run on the event loop, because a thread would wait for the interpreter at each of them. The
            # commit waits for the disk, so it runs in a thread.
            self._writer.execute("BEGIN IMMEDIATE")
            for statement in statements:
                self._writer.execute(*statement)
            await self._in_thread("COMMIT")
        except BaseException:
            self._writer.rollback()
            raise

    async def _recover(self) -> bool:
        """Try to hold the reserve again, at most once a second; return whether it is held."""
        loop = asyncio.get_running_loop()
        async with self._lock:
            if not self._reserve.is_held and time.monotonic() >= self._recover_at:
                self._recover_at = time.monotonic() + _RECOVERY_PAUSE_S
                with contextlib.suppress(sqlite3.Error):
                    # Delivered events still take space in the file, and recorded deliveries take space in the log.
                    await loop.run_in_executor(self._thread, self._writer.executescript, _SHRINK)
                await loop.run_in_executor(self._thread, self._reserve.hold)
            return self._reserve.is_held

    def _clean_soon(self) -> None:
        if self._cleaning is None:
            self._cleaning = asyncio.create_task(self._clean_later())

    async def _clean_later(self) -> None:
        await asyncio.sleep(self._pause_s)
        async with self._lock:
            # An event that is deleted from here on needs another cleaning.
            self._cleaning, began = None, time.monotonic()
            is_clean = await asyncio.get_running_loop().run_in_executor(self._thread, self._clean)
            self._pause_s = max(self._least_pause_s, (time.monotonic() - began) / _CLEANING_SHARE)
        if not is_clean:
            self._clean_soon()

    def _clean(self) -> bool:
        """
        Remove the dead letters about erased topics, and what deleted events left in the files.

        Returns:
            False if a full disk or another process prevents that.
        """
        try:
            erasures.remove_letters(self._writer, kept=self._kept)
            if self._path.stat().st_size <= _REWRITTEN_BYTES and self._reserve.is_held:
                self._writer.execute("VACUUM")
            ((is_busy, _, _),) = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error:
            return False
        return not is_busy

    async def _query(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        async with self._lock:
            return await self._in_thread(sql, values)

    async def _in_thread(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        def run() -> list[Any]:
            return self._writer.execute(sql, values).fetchall()

        return await asyncio.get_running_loop().run_in_executor(self._thread, run)


def note(path: Path, erased: Iterable[TopicErasure]) -> None:
    """Note erasures in the file of a queue that no broker has open; make the file if it does not exist."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(_SCHEMA)
        with connection as transaction:
            transaction.execute("BEGIN IMMEDIATE")
            transaction.executemany(erasures.NOTE, [each.row() for each in erased])


def _ended(delivery: Delivery) -> list[Statement]:
    return [
        (_END, (delivery.event, delivery.trigger)),
        (_FORGET, (delivery.event,)),
        (_COUNT, ("delivered", delivery.trigger)),
    ]
