"""
Remember which topics were erased, and remove the dead letters about them.

An event may become a dead letter long after its topic was erased. The queue therefore keeps an erasure of each topic: a
digest of its name, the time, and whether it was lifted since. The newest of several erasures counts.
"""

import hashlib
import sqlite3
import time
from collections.abc import Collection, Mapping
from typing import Any, Final

from msgspec import DecodeError, Struct, json

from chassis.wire.cloudevents import Event
from chassis.wire.event_rules import parse_time
from knbroker.topics import Topic, find_values

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS erasures (
  member TEXT NOT NULL, digest TEXT NOT NULL, at_us INTEGER NOT NULL, lifted INTEGER NOT NULL,
  PRIMARY KEY (member, digest)
) WITHOUT ROWID;
"""
NOTE: Final = """
INSERT INTO erasures VALUES (?, ?, ?, ?) ON CONFLICT (member, digest)
DO UPDATE SET at_us = excluded.at_us, lifted = excluded.lifted WHERE excluded.at_us > at_us
"""
_ERASED: Final = "SELECT member, digest FROM erasures WHERE NOT lifted"
_DEAD: Final = """
SELECT seq, attributes, data FROM events WHERE seq IN (SELECT event FROM deliveries WHERE dead_at IS NOT NULL)
"""
_REMOVE: Final = (
    "DELETE FROM deliveries WHERE dead_at IS NOT NULL AND event IN (SELECT value FROM json_each(?))",
    """
    DELETE FROM events
    WHERE seq IN (SELECT value FROM json_each(?)) AND NOT EXISTS (SELECT 1 FROM deliveries WHERE event = seq)
    """,
)


class TopicErasure(Struct, frozen=True, array_like=True):
    """
    The erasure of a topic; the fields are those of the table.

    Attributes:
        member: The member of the data of events that names the topic.
        digest: SHA-256 of the name.
        at_us: Time of the erasure, microseconds since the epoch.
        lifted: Whether letters about the topic are kept again.
    """

    member: str
    digest: str
    at_us: int
    lifted: bool = False

    @classmethod
    def of(cls, topic: Topic, *, at_us: int | None = None, lifted: bool = False) -> "TopicErasure":
        """Return the erasure of *topic*, now by default."""
        return cls(topic.member, _digest(topic.value), time.time_ns() // 1000 if at_us is None else at_us, lifted)

    def row(self) -> tuple[str, str, int, bool]:
        """Return the parameters of `NOTE`."""
        return self.member, self.digest, self.at_us, self.lifted


def erasure_by(event: Event, erasing: Mapping[str, str]) -> TopicErasure | None:
    """
    Return the erasure that *event* reports, or None if it reports none.

    Args:
        event: An event that its subscriber has accepted.
        erasing: For each type of event that erases a topic, the member of its data that names the topic.
    """
    member = erasing.get(str(event.attributes.get("type")))
    if member is None:
        return None
    try:
        name = json.decode(event.data or b"null", type=dict[str, Any])[member]
    except (DecodeError, UnicodeDecodeError, RecursionError, LookupError):
        return None
    return TopicErasure.of(Topic(member, str(name)), at_us=_time_us(event.attributes.get("time")))


def _time_us(text: Any) -> int:
    """Return the time *text* in microseconds since the epoch, or the present if it is missing, invalid or in the future."""
    now_us = time.time_ns() // 1000
    try:
        return min(round(parse_time(str(text)).timestamp() * 1_000_000), now_us)
    except ValueError:
        return now_us


def remove_letters(connection: sqlite3.Connection, *, kept: Collection[str] = ()) -> None:
    """
    Remove the dead letters about erased topics, except those of the types *kept*.

    The connection commits each statement itself. Cost: reading every dead letter, if a topic was erased.
    """
    erased: dict[str, set[str]] = {}
    for member, digest in connection.execute(_ERASED):
        erased.setdefault(member, set()).add(digest)
    if not erased:
        return
    doomed = []
    for seq, text, data in connection.execute(_DEAD).fetchall():
        attributes = json.decode(text)
        found = (
            ({*map(_digest, find_values(member, attributes, data))}, digests) for member, digests in erased.items()
        )
        if attributes.get("type") not in kept and any(not own.isdisjoint(digests) for own, digests in found):
            doomed.append(seq)
    if doomed:
        with connection as transaction:
            transaction.execute("BEGIN IMMEDIATE")
            for statement in _REMOVE:
                transaction.execute(statement, [json.encode(doomed).decode()])


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
