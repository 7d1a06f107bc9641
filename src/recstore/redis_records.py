"""Write a user's record to Redis, and read it: the commands, and what their answers mean."""

from collections.abc import Mapping
from typing import Any

import msgspec

from chassis.wire.redis_link import RedisCommand
from recstore.counters import COUNTERS, split_ties
from recstore.redis_keys import user_keys
from recstore.redis_scripts import READ
from recsys.records import AGE_GROUP, HistoryItem, KnownUser, UserAttribute, UserRecord

_ATTRIBUTE = "a:"

_decode_values = msgspec.json.Decoder(tuple[str, ...]).decode


def write_record(pipeline: Any, generation: str, digest: str, record: UserRecord, *, ttl_s: int) -> None:
    """Add the commands that write *record*, of the user with a *digest* and without keys, to *pipeline*."""
    user, times, weights, _, avoided = user_keys(generation, digest)
    names = ("user_id", AGE_GROUP, *COUNTERS, "as_of_us")
    profile = {name: value for name in names if (value := getattr(record, name)) is not None}
    profile |= {f"{_ATTRIBUTE}{each.name}": f"{each.at_us}|{each.encoded}" for each in record.attributes}
    pipeline.hset(user, mapping=profile)
    for key, items in ((times, record.history), (avoided, record.avoided)):
        if items:
            pipeline.zadd(key, {item.item_id: -item.time_us for item in items})
            pipeline.hset(weights, mapping={item.item_id: repr(item.weight) for item in items})
    if ttl_s:
        for key in (user, times, weights, avoided):
            pipeline.expire(key, ttl_s)


def read_known(generation: str, digest: str, *, history: int) -> list[RedisCommand]:
    """
    Return the commands that read one consistent state of a user.

    A transaction costs Redis 10 us. A script costs 40, for running Lua and encoding its tables, and 50 more if it
    returned times and weights, which requests do not need.
    """
    user, times, _, _, avoided = user_keys(generation, digest)
    places = _places(history)
    return [("MULTI",), ("HGETALL", user), ("ZRANGE", times, *places), ("ZRANGE", avoided, *places), ("EXEC",)]


def read_alone(generation: str, digest: str, *, history: int) -> list[RedisCommand]:
    """Return the script that answers as the transaction of `read_known`."""
    return [("EVALSHA", READ, 5, *user_keys(generation, digest), *_places(history))]


def _places(history: int) -> tuple[int, int]:
    # From 0 to -1 would be all of them.
    return (0, history - 1) if history else (1, 0)


READ_LENGTH = 5
"""The number of commands of `read_known`. The last answer holds what the others found."""


def known_user(user_id: str, profile: list[Any], *lists: list[str] | Exception) -> KnownUser | None:
    """
    Return the user of an answer to `read_known`; None for an unknown user.

    Raises:
        ValueError, TypeError: the answer does not hold a user.
    """
    if any(isinstance(items, Exception) for items in lists):
        raise TypeError("a command of the transaction failed")
    found = _fields(profile)
    return KnownUser(*(user_id, *_profile(found), *lists)) if AGE_GROUP in found else None


def user_record(user_id: str, profile: list[Any], items: list[str], weights: list[str]) -> UserRecord:
    """
    Return the record in an answer of the script `SCAN`.

    Raises:
        ValueError, TypeError: the answer does not hold a record.
    """
    ties = (
        HistoryItem(item, float(weight), -int(float(score)))
        for item, score, weight in zip(items[::2], items[1::2], weights, strict=True)
    )
    return UserRecord(*(user_id, *_profile(_fields(profile)), *split_ties(ties)))


def _fields(content: list[str]) -> dict[str, str]:
    """Return the fields of a hash, whose names and values take turns in *content*."""
    return dict(zip(content[::2], content[1::2], strict=True))


def _profile(found: Mapping[str, str]) -> tuple[Any, ...]:
    """Return the fields of `Profile` after the user id."""
    counts, as_of_us = (int(found.get(name) or 0) for name in COUNTERS), found.get("as_of_us")
    attributes = tuple(_attribute(name, found[name]) for name in sorted(found) if name.startswith(_ATTRIBUTE))
    return found[AGE_GROUP], *counts, None if as_of_us is None else int(as_of_us), attributes


def _attribute(field: str, value: str) -> UserAttribute:
    at_us, _, values = value.partition("|")
    return UserAttribute(field.removeprefix(_ATTRIBUTE), int(at_us), _decode_values(values))
