"""
The exposure log in Redis. The keys of a user have the hash tag of the feature store's, so that one script may use both:

    recsys:shown:{D}:x    hash     exposures as JSON, by id
    recsys:shown:{D}:xt   sorted   their ids (score: time)
    recsys:shown:{D}:a    hash     actions as JSON, by event
    recsys:shown:{D}:at   sorted   their events (score: time)

D is the SHA-256 of the user id. The keys expire with the retention after the newest entry. They belong to no generation
of the store: a replacement of the store's content leaves them.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from itertools import chain

import msgspec

from recstore.erasures import digest_user
from recstore.exposures.join import DAY_S, join
from recstore.exposures.log import MOST_PER_USER, RETENTION_S
from recstore.exposures.records import Action, Entry, Exposure, ExposureGroup, ExposureOutcome
from recstore.port import EventOutcome
from recstore.redis_database import RedisDatabase
from recstore.redis_keys import erasure_key, exposure_keys
from recstore.redis_scripts import OUTCOMES, REFUSED

TIMEOUT_S = 5.0
_CHUNK, _NOTE_CHUNK = 500, 64
_NOTE = f"""
{REFUSED}
if refused(KEYS[3], ARGV[2]) then return 2 end
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[3]) == 0 then return 0 end
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
local function forget(keys)
    for _, key in ipairs(keys) do
        redis.call('HDEL', KEYS[1], key)
        redis.call('ZREM', KEYS[2], key)
    end
end
forget(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. ARGV[4], 'LIMIT', 0, 1000))
local spare = redis.call('ZCARD', KEYS[2]) - tonumber(ARGV[5])
if spare > 0 then forget(redis.call('ZRANGE', KEYS[2], 0, spare - 1)) end
for _, key in ipairs({{KEYS[1], KEYS[2]}}) do redis.call('PEXPIRE', key, ARGV[6]) end
return 1
"""

_encode = msgspec.json.Encoder().encode
_exposure, _action = msgspec.json.Decoder(Exposure).decode, msgspec.json.Decoder(Action).decode


class RedisExposures:
    """
    Keep entries in one Redis database.

    Args:
        url: As for `RedisStore`.
        password: The password, if *url* has none.
        retention_s: Age in seconds from which entries are deleted.
        most_per_user: Most exposures, and most actions, that the log keeps for each user.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        url: str,
        *,
        password: str | None = None,
        retention_s: float = RETENTION_S,
        most_per_user: int = MOST_PER_USER,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = RedisDatabase(url, password=password, timeout_s=TIMEOUT_S)
        self._script = self._database.client.register_script(_NOTE)
        self._retention_s, self._most_per_user, self._clock = retention_s, most_per_user, clock

    async def note(self, entries: Sequence[Entry]) -> list[EventOutcome]:
        """Keep each answer and each action of *entries* with one script; about 50 us of CPU for each."""
        records = list(chain.from_iterable(map(_records, entries)))
        outcomes: list[EventOutcome] = []
        # Other calls of the event loop run between the chunks.
        for start in range(0, len(records), _NOTE_CHUNK):
            outcomes += await self._note(records[start : start + _NOTE_CHUNK])
        return outcomes

    async def _note(self, records: Sequence[Exposure | Action]) -> list[EventOutcome]:
        oldest_us, ttl_ms = round((self._clock() - self._retention_s) * 1e6), round(self._retention_s * 1000)
        pipeline = self._database.client.pipeline(transaction=False)
        for record in records:
            user = digest_user(record.user_id)
            keys = exposure_keys(user)
            if isinstance(record, Action):
                own, field = keys[2:], record.event
            else:
                own, field = keys[:2], record.exposure_id
            values = (field, record.time_us, _encode(record), oldest_us, self._most_per_user, ttl_ms)
            await self._script([*own, erasure_key(user)], values, client=pipeline)
        return [OUTCOMES[answer] for answer in await self._database.send(pipeline)]

    async def scan(self, *, window_s: float = DAY_S) -> AsyncIterator[ExposureOutcome]:
        """Yield every exposure with its outcomes; may miss users who are added or removed during the scan."""
        prefix, suffix = exposure_keys("|")[0].split("|")
        # Redis may return a key twice.
        users = sorted({key[len(prefix) : -len(suffix)] async for key in self._database.keys(f"{prefix}*{suffix}")})
        for start in range(0, len(users), _CHUNK):
            pipeline = self._database.client.pipeline(transaction=False)
            some = users[start : start + _CHUNK]
            for user in some:
                exposures, _, actions, _ = exposure_keys(user)
                pipeline.hvals(exposures)
                pipeline.hvals(actions)
            found = iter(await self._database.send(pipeline))
            for exposures, actions in zip(found, found, strict=True):
                for each in self._database.errors.decode(partial(_joined, exposures, actions, round(window_s * 1e6))):
                    yield each

    async def aclose(self) -> None:
        """Close the connections."""
        await self._database.aclose()


def _records(entry: Entry) -> Iterable[Exposure | Action]:
    return entry.exposures() if isinstance(entry, ExposureGroup) else (entry,)


def _joined(exposures: Sequence[str], actions: Sequence[str], window_us: int) -> list[ExposureOutcome]:
    return join([_exposure(body) for body in exposures], [_action(body) for body in actions], window_us=window_us)
