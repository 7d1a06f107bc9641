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

    An event about several is about the topic if an object of a list in its data is.
    """

    member: str
    value: str

    def is_of(self, attributes: Mapping[str, Any], data: bytes | None) -> bool:
        """Tell whether an event is about this."""
        if attributes.get("subject") == self.value:
            return True
        try:
            found = json.decode(data or b"null")
        except (DecodeError, UnicodeDecodeError, RecursionError):
            return False
        if not isinstance(found, dict):
            return False
        listed = (each for each in found.values() if isinstance(each, list))
        return any(isinstance(each, dict) and each.get(self.member) == self.value for each in [found, *chain(*listed)])


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
