"""Find the events about a topic, and delete them from the file of a queue."""

import sqlite3
from collections.abc import Mapping
from itertools import chain
from typing import Any, Final

from msgspec import DecodeError, Struct, json

_DISCARD: Final = (
    "DELETE FROM deliveries WHERE event IN (SELECT value FROM json_each(?))",
    "DELETE FROM events WHERE seq IN (SELECT value FROM json_each(?))",
)


class Topic(Struct, frozen=True):
    """
    A topic of events: *value* is the subject of an event, or the member *member* of its JSON data.

    The member may be a list of values, and may belong to an object of a list in the data.
    """

    member: str
    value: str

    def is_of(self, attributes: Mapping[str, Any], data: bytes | None) -> bool:
        """Tell whether an event is about this."""
        return self.value in find_values(self.member, attributes, data)


def find_values(member: str, attributes: Mapping[str, Any], data: bytes | None) -> set[str]:
    """Return the values of all topics with *member* that an event is about."""
    try:
        found = json.decode(data or b"null")
    except (DecodeError, UnicodeDecodeError, RecursionError):
        found = None
    members = found if isinstance(found, dict) else {}
    listed = (each for each in members.values() if isinstance(each, list))
    named = [each.get(member) for each in [members, *chain(*listed)] if isinstance(each, dict)]
    values = chain.from_iterable(each if isinstance(each, list) else [each] for each in named)
    return {each for each in [attributes.get("subject"), *values] if isinstance(each, str)}


def discard(connection: sqlite3.Connection, topic: Topic) -> int:
    """
    Delete the events about *topic* from the file of a queue, and rewrite the file, which also holds delivered events.

    The connection commits each statement itself. Cost: reading and writing the whole file.
    """
    rows = connection.execute("SELECT seq, attributes, data FROM events").fetchall()
    doomed = [seq for seq, attributes, data in rows if topic.is_of(json.decode(attributes), data)]
    with connection as transaction:
        transaction.execute("BEGIN IMMEDIATE")
        for statement in _DISCARD:
            transaction.execute(statement, [json.encode(doomed).decode()])
    connection.execute("VACUUM")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return len(doomed)
