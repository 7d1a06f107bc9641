"""The rows of exposures in a SQLite feature store (`recstore.sqlite_answers`), written and read as groups."""

import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from itertools import chain

import msgspec

from recstore.exposures.records import ExposureGroup, Origin, ShownItem
from recstore.sqlite_answers import drop_answers

# The columns of answers, and the origins that they share.
_Columns = tuple[list[str], list[int], list[tuple[str | ShownItem, ...]], list[int | None], list[int]]
_Body = tuple[_Columns, list[Origin]]

# An erasure writes each row with an answer to the user again, so rows are not longer.
_ROW_ANSWERS = 128
_encode = msgspec.json.Encoder().encode
_users, _body = msgspec.json.Decoder(list[str]).decode, msgspec.json.Decoder(_Body).decode

_KEEP = "INSERT INTO exposures VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
_ALL = "SELECT rowid, key, users, body FROM exposures"
_HEAVY = "SELECT value FROM exposures, json_each(users) GROUP BY value HAVING count(*) > ?"


def keep_group(transaction: sqlite3.Connection, group: ExposureGroup) -> bool:
    """Keep *group*, and return True; if the table has its key, return False."""
    first, *others = group.parts(_ROW_ANSWERS)
    if not transaction.execute(_KEEP, _row(first)).rowcount:
        return False
    transaction.executemany(_KEEP, map(_row, others))
    return True


def read_groups(connection: sqlite3.Connection) -> Iterator[ExposureGroup]:
    """
    Yield all groups in the order of their arrival.

    Raises:
        msgspec.MsgspecError: a row is damaged.
    """
    return (group for _, group, _ in _read(connection.execute(f"{_ALL} ORDER BY rowid")))


def list_heavy_users(connection: sqlite3.Connection, most: int) -> set[str]:
    """Return the users with more than *most* exposures; about 0.3 us an exposure, while other Python code runs."""
    return {user_id for (user_id,) in connection.execute(_HEAVY, [most])}


def limit_users(transaction: sqlite3.Connection, users: Collection[str], most: int) -> None:
    """Remove the oldest exposures of each of *users*, so that *most* remain."""
    own: dict[str, list[tuple[int, str, int, int]]] = defaultdict(list)
    for row, group, _ in _read(transaction.execute(_ALL)) if users else ():
        for place, user_id in enumerate(group.user_ids):
            if user_id in users:
                own[user_id].append((group.times_us[place], group.exposure_ids[place], row, place))
    spare: dict[int, set[int]] = defaultdict(set)
    for _, _, row, place in chain.from_iterable(sorted(each, reverse=True)[most:] for each in own.values()):
        spare[row].add(place)
    for row, places in spare.items():
        ((_, group, body),) = _read(transaction.execute(f"{_ALL} WHERE rowid = ?", [row]))
        drop_answers(transaction, row, group.user_ids, body, places)


def _row(group: ExposureGroup) -> tuple[str, int, str, str]:
    columns = (group.exposure_ids, group.times_us, group.items, group.took_us, group.origin)
    body = _encode((columns, group.origins)).decode()
    return group.key, max(group.times_us), _encode(group.user_ids).decode(), body


def _read(rows: Iterable[tuple[int, str, str, str]]) -> Iterator[tuple[int, ExposureGroup, str]]:
    """Yield the number of each row, its group, and its body."""
    for row, key, users, body in rows:
        user_ids, ((ids, times, items, took, origin), origins) = _users(users), _body(body)
        lengths = {len(each) for each in (user_ids, ids, times, items, took, origin)}
        if len(lengths) > 1 or not 0 <= min(origin, default=0) <= max(origin, default=0) < len(origins):
            raise msgspec.ValidationError(f"the exposures of the event {key!r} are damaged")
        yield row, ExposureGroup(key, user_ids, ids, times, items, took, origins, origin), body
