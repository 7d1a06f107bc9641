"""
The catalogue in Redis. Its keys have one hash tag, so that one script may use all of them:

    recsys:{items}:descriptions   hash     item -> TIME|DESCRIPTION
    recsys:{items}:availability   hash     item -> TIME|1 or TIME|0
    recsys:{items}:changes        sorted   items by the revision of their newest change
    recsys:{items}:revision       number   changes so far
"""

from collections.abc import Sequence
from functools import partial

from recstore.catalogue.entries import Entry
from recstore.redis_database import RedisDatabase
from recstore.redis_keys import catalogue_key

TIMEOUT_S = 5.0
_CHUNK = 500
_DESCRIPTIONS, _AVAILABILITY, _CHANGES, _REVISION = KEYS = tuple(
    map(catalogue_key, ("descriptions", "availability", "changes", "revision"))
)
_PUT = """
local function put(key, at, value)
    if tonumber(at) < 0 then return false end
    local found = redis.call('HGET', key, ARGV[1])
    if found then
        local us, former = string.match(found, '^(%d+)|(.*)$')
        if tonumber(at) < tonumber(us) or (tonumber(at) == tonumber(us) and value <= former) then return false end
    end
    redis.call('HSET', key, ARGV[1], at .. '|' .. value)
    return true
end
local described = put(KEYS[1], ARGV[2], ARGV[3])
local available = put(KEYS[2], ARGV[4], ARGV[5])
if not (described or available) then return 0 end
redis.call('ZADD', KEYS[3], redis.call('INCR', KEYS[4]), ARGV[1])
return 1
"""


class RedisCatalogue:
    """
    Keep entries in one Redis database.

    Args:
        url: As for `RedisStore`.
        password: The password, if *url* has none.
    """

    def __init__(self, url: str, *, password: str | None = None) -> None:
        self._database = RedisDatabase(url, password=password, timeout_s=TIMEOUT_S)
        self._put = self._database.client.register_script(_PUT)

    async def put(self, entries: Sequence[Entry]) -> list[bool]:
        """Merge each of *entries* with one script."""
        told: list[bool] = []
        for start in range(0, len(entries), _CHUNK):
            pipeline = self._database.client.pipeline(transaction=False)
            for each in entries[start : start + _CHUNK]:
                values = (each.description, each.available_us, int(each.available))
                await self._put(KEYS, [each.item_id, each.described_us, *values], client=pipeline)
            told += [bool(answer) for answer in await self._database.send(pipeline)]
        return told

    async def read(self, *, after: int) -> tuple[int, list[Entry]]:
        """Return the revision and the changed entries; one round trip without changes."""
        pipeline = self._database.client.pipeline(transaction=True)
        pipeline.get(_REVISION)
        pipeline.zrangebyscore(_CHANGES, f"({after}", "+inf")
        revision, items = await self._database.send(pipeline)
        entries: list[Entry] = []
        for start in range(0, len(items), _CHUNK):
            some = items[start : start + _CHUNK]
            pipeline = self._database.client.pipeline(transaction=True)
            pipeline.hmget(_DESCRIPTIONS, some)
            pipeline.hmget(_AVAILABILITY, some)
            answers = await self._database.send(pipeline)
            entries += self._database.errors.decode(partial(_entries, some, *answers))
        return int(revision or 0), entries

    async def aclose(self) -> None:
        """Close the connections."""
        await self._database.aclose()


def _entries(items: Sequence[str], descriptions: list[str | None], availability: list[str | None]) -> list[Entry]:
    return [
        Entry(item, text, at_us, flag != "0", available_us)
        for item, (at_us, text), (available_us, flag) in zip(
            items, map(_split, descriptions), map(_split, availability), strict=True
        )
    ]


def _split(found: str | None) -> tuple[int, str]:
    at_us, _, value = (found or "-1|").partition("|")
    return int(at_us), value
