"""
A feature store in Redis, which instances on several machines can share.

Each user has up to six keys with one hash tag, so that they live on one node of a cluster and one script may use all of
them. D is the SHA-256 of the user id, so that the name of a key does not hold the id:

    recsys:G:{D}:u         hash     user id, profile and counters; attributes as a:NAME -> TIME|VALUES (JSON)
    recsys:G:{D}:t         sorted   items with a weight above 0 by newest interaction (score: minus microseconds)
    recsys:G:{D}:n         sorted   the same for all other items
    recsys:G:{D}:w         hash     items' weights
    recsys:G:{D}:e         sorted   digests of events seen (score: time), trimmed to the window, expiring with it
    recsys:erased:{D}      hash     the erasure or readmission of the user, if any

G is the generation that `recsys:current` names. A replacement fills the next generation, names it there, and deletes
all others. Erasures, the catalogue (`recsys.catalogue.redis`) and exposures (`recsys.exposures.redis`) stay. A user with
50 items and 20 recent events takes about 9 KB.

A call takes one round trip for any number of users or events: its commands go together, and each event is one script.
"""

import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from chassis.wire.redis_link import RedisCommand, RedisLink
from recsys.contracts.wire import Features
from recsys.declaration.types import Declaration
from recsys.features import UNKNOWN_AGE
from recsys.records import AGE_GROUP, HistoryItem, Interaction, KnownUser, UserAttribute, UserRecord, UserUpdate
from recsys.stores.counters import DEDUPLICATION_WINDOW_S, countable, new_record, split_ties
from recsys.stores.erasures import Erasure, Removed, digest_user, list_erased
from recsys.stores.port import Outcome, StoreFormatError, StoreUnavailableError

Read = TypeVar("Read")
Each = TypeVar("Each")
Fact = TypeVar("Fact", bound=msgspec.Struct)

TIMEOUT_S = 0.5
_CHUNK = 200
_POINTER = "recsys:current"
_ERASURES = "recsys:erased:"
_CATALOGUE = "recsys:{items}:"
_SHOWN = "recsys:shown:"
_COUNTERS = ("views", "clicks", "purchases", "sessions", "session_ms")
_PLAIN = (AGE_GROUP, *_COUNTERS, "as_of_us")
_ATTRIBUTE = "a:"

_SCAN = """
if redis.call('HEXISTS', KEYS[1], 'age_group') == 0 then return false end
local profile = redis.call('HGETALL', KEYS[1])
local items = redis.call('ZRANGE', KEYS[2], 0, tonumber(ARGV[1]) - 1, 'WITHSCORES')
for _, each in ipairs(redis.call('ZRANGE', KEYS[4], 0, tonumber(ARGV[1]) - 1, 'WITHSCORES')) do
    items[#items + 1] = each
end
local ids = {}
for i = 1, #items, 2 do ids[#ids + 1] = items[i] end
local weights = {}
for first = 1, #ids, 1000 do
    local some = redis.call('HMGET', KEYS[3], unpack(ids, first, math.min(first + 999, #ids)))
    for i = 1, #some do weights[#weights + 1] = some[i] end
end
return {profile, items, weights}
"""
# The arguments are the time, the age group of a new user, the time to live, the user id, the new age group, and a name and
# a value for each attribute.
_UPDATE = """
local at = ARGV[1]
local erased = redis.call('HMGET', KEYS[6], 'at_us', 'readmitted')
if erased[1] and (erased[2] ~= '1' or tonumber(at) < tonumber(erased[1])) then return 2 end
local changed = redis.call('HSETNX', KEYS[1], 'age_group', ARGV[2])
if changed == 1 then redis.call('HSET', KEYS[1], 'user_id', ARGV[4]) end
for i = 6, #ARGV, 2 do
    local field, value = 'a:' .. ARGV[i], ARGV[i + 1]
    local us, former = string.match(redis.call('HGET', KEYS[1], field) or '', '^(%d+)|(.*)$')
    if not us or tonumber(at) > tonumber(us) or (tonumber(at) == tonumber(us) and value > former) then
        redis.call('HSET', KEYS[1], field, at .. '|' .. value)
        if ARGV[i] == 'age_group' then redis.call('HSET', KEYS[1], 'age_group', ARGV[5]) end
        changed = 1
    end
end
if changed == 1 and ARGV[3] ~= '0' then
    for _, key in ipairs({KEYS[1], KEYS[2], KEYS[3], KEYS[5]}) do redis.call('EXPIRE', key, ARGV[3]) end
end
return changed
"""
# Numbers stay strings, because Lua would print long ones with an exponent. The script notes the event last: if an earlier
# command fails, the next delivery is not taken for a repeated one.
_APPLY = """
local digest, now, window = ARGV[1], ARGV[2], ARGV[3]
local erased = redis.call('HMGET', KEYS[6], 'at_us', 'readmitted')
if erased[1] and (erased[2] ~= '1' or tonumber(ARGV[7]) < tonumber(erased[1])) then return 2 end
local oldest = tonumber(now) - tonumber(window)
local seen = redis.call('ZSCORE', KEYS[4], digest)
if seen and tonumber(seen) > oldest then return 0 end
if redis.call('HSETNX', KEYS[1], 'age_group', ARGV[4]) == 1 then redis.call('HSET', KEYS[1], 'user_id', ARGV[11]) end
redis.call('HINCRBY', KEYS[1], 'session_ms', ARGV[6])
if ARGV[5] ~= '' then redis.call('HINCRBY', KEYS[1], ARGV[5], 1) end
local newest = redis.call('HGET', KEYS[1], 'as_of_us')
if not newest or tonumber(ARGV[7]) > tonumber(newest) then redis.call('HSET', KEYS[1], 'as_of_us', ARGV[7]) end
if ARGV[8] ~= '' then
    local weight = tonumber(redis.call('HINCRBYFLOAT', KEYS[3], ARGV[8], ARGV[9]))
    local own, other = KEYS[2], KEYS[5]
    if weight <= 0 then own, other = other, own end
    local moved = redis.call('ZSCORE', other, ARGV[8])
    if moved then
        redis.call('ZREM', other, ARGV[8])
        redis.call('ZADD', own, moved, ARGV[8])
    end
    redis.call('ZADD', own, 'LT', -tonumber(ARGV[7]), ARGV[8])
end
if ARGV[10] ~= '0' then
    for _, key in ipairs({KEYS[1], KEYS[2], KEYS[3], KEYS[5]}) do redis.call('EXPIRE', key, ARGV[10]) end
end
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', oldest)
redis.call('ZADD', KEYS[4], now, digest)
redis.call('PEXPIRE', KEYS[4], math.ceil(tonumber(window) / 1000))
return 1
"""
# The keys are that of the erasure, the four of the exposure log, and the five of the user in each generation.
_ERASE = """
local noted = redis.call('HGET', KEYS[1], 'at_us')
if not noted or tonumber(noted) < tonumber(ARGV[1]) then
    redis.call('HSET', KEYS[1], 'at_us', ARGV[1], 'readmitted', ARGV[2])
end
local removed = {0, 0, 0, 0, 0}
if redis.call('HGET', KEYS[1], 'readmitted') == '1' then return removed end
removed[4], removed[5] = redis.call('ZCARD', KEYS[3]), redis.call('ZCARD', KEYS[5])
redis.call('DEL', unpack(KEYS, 2, 5))
for key = 6, #KEYS, 5 do
    removed[1] = removed[1] + redis.call('EXISTS', KEYS[key])
    removed[2] = removed[2] + redis.call('ZCARD', KEYS[key + 1]) + redis.call('ZCARD', KEYS[key + 4])
    removed[3] = removed[3] + redis.call('ZCARD', KEYS[key + 3])
    redis.call('DEL', unpack(KEYS, key, key + 4))
end
return removed
"""
_SCRIPTS = {
    hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(): text for text in (_SCAN, _APPLY, _UPDATE, _ERASE)
}
_SCAN_SHA, _APPLY_SHA, _UPDATE_SHA, _ERASE_SHA = _SCRIPTS
_decode_values = msgspec.json.Decoder(tuple[str, ...]).decode


def open_client(url: str, *, password: str | None, timeout_s: float) -> Redis:
    """Return a client for the Redis at *url*; the *password* is used if *url* has none. It connects at the first call."""
    credentials: dict[str, Any] = {"password": password} if password else {}
    return Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        decode_responses=True,
        # If Redis closed an idle connection, the call is retried once.
        retry=Retry(NoBackoff(), 1),
        **credentials,
    )


class RedisStore:
    """
    Keep records in one Redis database.

    Args:
        url: `redis://[USER:PASSWORD@]HOST[:PORT][/DB]`, or `rediss://` for TLS.
        password: The password, if *url* has none.
        window_s: Seconds during which a repeated event is recognised.
        ttl_s: Seconds without events after which a user is deleted; 0 for never.
        clock: Seconds since the epoch.

    The first call connects, and a call after a broken connection reconnects.
    """

    def __init__(
        self,
        url: str,
        *,
        password: str | None = None,
        window_s: float = DEDUPLICATION_WINDOW_S,
        ttl_s: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._redis = open_client(url, password=password, timeout_s=TIMEOUT_S)
        pool = self._redis.connection_pool
        self._translated = _TranslatedRedisErrors(_place(pool.connection_kwargs))
        self._link = RedisLink(
            # The link has a timeout for each call, and its reader waits without one. In protocol 2 the server sends
            # nothing but answers.
            lambda: pool.connection_class(**{**pool.connection_kwargs, "socket_timeout": None, "protocol": 2}),
            timeout_s=TIMEOUT_S,
        )
        self._window_us = int(window_s * 1_000_000)
        self._ttl_s = ttl_s
        self._clock = clock
        self._generation = "0"

    async def read(self, user_ids: Sequence[str], *, history: int) -> list[KnownUser | None]:
        """Return each of *user_ids*."""

        def commands(generation: str) -> list[RedisCommand]:
            keys = (_keys(generation, digest_user(user_id)) for user_id in user_ids)
            return [command for each in keys for command in _read(each[0], each[1], each[4], history=history)]

        answers = await self._run(commands)
        # The last answer of a transaction holds what its commands found.
        found = zip(user_ids, answers[_READ_LENGTH - 1 :: _READ_LENGTH], strict=True)
        return self._translated.decode(lambda: [_known(user_id, *parts) for user_id, parts in found])

    async def apply(self, interactions: Sequence[Interaction]) -> list[Outcome]:
        """Count each of *interactions* with one script."""
        now_us = int(self._clock() * 1_000_000)

        def command(generation: str, each: Interaction) -> RedisCommand:
            user = digest_user(each.user_id)
            return (
                "EVALSHA",
                _APPLY_SHA,
                6,
                *_keys(generation, user),
                erasure_key(user),
                each.digest(),
                now_us,
                self._window_us,
                new_record(each.user_id).age_group,
                each.counter or "",
                each.duration_ms,
                each.time_us,
                each.item_id or "",
                repr(each.weight),
                self._ttl_s,
                each.user_id,
            )

        return [_OUTCOMES[answer] for answer in await self._run(lambda g: [command(g, each) for each in interactions])]

    async def update(self, updates: Sequence[UserUpdate]) -> list[Outcome]:
        """Take over the values of each of *updates* with one script."""

        def command(generation: str, each: UserUpdate) -> RedisCommand:
            user = digest_user(each.user_id)
            age_group = next(iter(each.values.get(AGE_GROUP, ())), UNKNOWN_AGE)
            fixed = (each.at_us, UNKNOWN_AGE, self._ttl_s, each.user_id, age_group)
            values = (text for attribute in each.attributes() for text in (attribute.name, attribute.encoded))
            return ("EVALSHA", _UPDATE_SHA, 6, *_keys(generation, user), erasure_key(user), *fixed, *values)

        return [_OUTCOMES[answer] for answer in await self._run(lambda g: [command(g, each) for each in updates])]

    async def population(self) -> Features | None:
        """Return the defaults for unknown users; None before the first `replace`."""
        return await self._fact("population", Features)

    async def declaration(self) -> Declaration | None:
        """Return the declaration by which the store was filled."""
        return await self._fact("declaration", Declaration)

    async def _fact(self, name: str, type_: type[Fact]) -> Fact | None:
        (found,) = await self._run(lambda generation: [("GET", _fact_key(generation, name))])
        return self._translated.decode(lambda: msgspec.json.decode(found, type=type_)) if found else None

    async def replace(
        self, records: Iterable[UserRecord], *, population: Features, declaration: Declaration | None = None
    ) -> int:
        """
        Fill the next generation with *records*, point to it, and delete the generation before.

        Events that are accepted during a replacement are lost, so pause the senders. Replacements must not overlap.
        """
        with self._translated:
            before = await self._pointed_at()
            generation = str(int(before) + 1)
            # An interrupted replacement leaves keys, and so do events that reached a former generation late.
            await self._delete_others(before)
            erased = list_erased(await self.erasures())
            count = await self._fill(generation, records, erased=erased)
            await self._redis.set(_fact_key(generation, "population"), msgspec.json.encode(population))
            if declaration:
                await self._redis.set(_fact_key(generation, "declaration"), declaration.encode())
            # An erasure that is noted after this look removes its user from the new generation too.
            for user in list_erased(await self.erasures()) - erased:
                await self._redis.delete(*_keys(generation, user))
            await self._send([("SET", _POINTER, generation)])
        self._generation = generation
        # The content is replaced. The next replacement deletes the keys that cannot be deleted now.
        with contextlib.suppress(RedisError):
            await self._delete_others(generation)
        return count

    async def scan(self) -> AsyncIterator[UserRecord]:
        """Yield every record by user id; may miss users that are added or deleted during the scan."""
        with self._translated:
            generation = await self._pointed_at()
            prefix, suffix = f"recsys:{generation}:{{", "}:u"
            keys = [key async for key in self._redis.scan_iter(match=f"{prefix}*{suffix}", count=1000)]
        users = [key[len(prefix) : -len(suffix)] for key in keys]
        found: list[tuple[str, str]] = []
        for some in _chunks(users):
            answers = await self._run(partial(_user_ids, users=some))
            # A user may have been removed since.
            found += [(user_id, user) for user_id, user in zip(answers, some, strict=True) if user_id is not None]
        for pairs in _chunks(sorted(found)):
            answers = await self._run(partial(_scan, users=[user for _, user in pairs]))
            for (user_id, _), answer in zip(pairs, answers, strict=True):
                if answer is not None:
                    yield self._translated.decode(partial(_record, user_id, *answer))

    async def adopt(self, erasures: Iterable[Erasure]) -> Removed:
        """Take over newer *erasures*, each with one script."""
        removed = Removed()
        # A script that runs for a former generation runs again for the current one, and then finds nothing to count.
        await self._run(lambda _: [])
        for some in _chunks(list(erasures)):
            answers = await self._run(partial(_erase, erasures=some))
            removed += sum((Removed(*answer) for answer in answers), Removed())
        return removed

    async def erase(self, user_id: str, *, at_us: int) -> Removed:
        """Remove a user with one script."""
        return await self.adopt([Erasure(digest_user(user_id), at_us)])

    async def erasures(self) -> list[Erasure]:
        """Return the erasures; the cost is that of listing all keys."""
        with self._translated:
            await self._pointed_at()
            keys = [key async for key in self._redis.scan_iter(match=f"{_ERASURES}*", count=1000)]
        found: list[Erasure] = []
        for some in _chunks(keys):
            answers = await self._run(partial(_show_erasures, keys=some))
            found += self._translated.decode(partial(_read_erasures, some, answers))
        return found

    async def scrub(self) -> None:
        """Let Redis rewrite its append-only file or its snapshot in the background, if it keeps them."""
        with self._translated:
            await self._pointed_at()
            if (await self._redis.info("persistence"))["aof_enabled"]:
                await self._redis.bgrewriteaof()
            elif (await self._redis.config_get("save")).get("save"):
                await self._redis.bgsave(schedule=True)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._link.aclose()
        await self._redis.aclose()

    async def _pointed_at(self) -> str:
        # The link refuses calls after it was closed; redis-py's client would open another connection.
        (found,) = await self._send([("GET", _POINTER)])
        return self._translated.generation(found)

    async def _run(self, commands: Callable[[str], Sequence[RedisCommand]]) -> list[Any]:
        """
        Send the *commands* for the generation known here, and return the answers.

        The last command reads the current generation. If it is the same, all commands reached it in time. If it has
        changed, all commands are sent again for the new generation, because reads found old content, and events
        counted in the former generation are deleted with it.
        """
        with self._translated:
            while True:
                generation = self._generation
                *answers, found = await self._send([*commands(generation), ("GET", _POINTER)])
                if (found or "0") == generation:
                    return answers
                self._generation = self._translated.generation(found)

    async def _send(self, commands: Sequence[RedisCommand]) -> list[Any]:
        answers = await self._link.ask(commands)
        failures = _failures(answers)
        if failures and all(isinstance(failure, NoScriptError) for failure in failures):
            # Redis was restarted or never had the scripts. None of them ran.
            failures = _failures(await self._link.ask([("SCRIPT", "LOAD", text) for text in _SCRIPTS.values()]))
            if not failures:
                answers = await self._link.ask(commands)
                failures = _failures(answers)
        if failures:
            raise failures[0]
        return answers

    async def _fill(self, generation: str, records: Iterable[UserRecord], *, erased: set[str]) -> int:
        count = 0
        pipeline = self._redis.pipeline(transaction=False)
        for record in countable(records):
            digest = digest_user(record.user_id)
            if digest in erased:
                continue
            user, times, weights, _, avoided = _keys(generation, digest)
            profile: dict[Any, Any] = {
                name: getattr(record, name) for name in ("user_id", *_PLAIN) if getattr(record, name) is not None
            }
            profile |= {f"{_ATTRIBUTE}{each.name}": f"{each.at_us}|{each.encoded}" for each in record.attributes}
            pipeline.hset(user, mapping=profile)
            for key, items in ((times, record.history), (avoided, record.avoided)):
                if items:
                    pipeline.zadd(key, {item.item_id: -item.time_us for item in items})
                    pipeline.hset(weights, mapping={item.item_id: repr(item.weight) for item in items})
            if self._ttl_s:
                for key in (user, times, weights, avoided):
                    pipeline.expire(key, self._ttl_s)
            count += 1
            if count % _CHUNK == 0:
                await pipeline.execute()
        await pipeline.execute()
        return count

    async def _delete_others(self, generation: str) -> None:
        """Delete all keys of other generations than *generation*."""
        kept = (_POINTER, _ERASURES, _CATALOGUE, _SHOWN, f"recsys:{generation}:")
        doomed: list[str] = []
        async for key in self._redis.scan_iter(match="recsys:*", count=1000):
            if not key.startswith(kept):
                doomed.append(key)
            if len(doomed) == _CHUNK:
                await self._redis.unlink(*doomed)
                doomed.clear()
        if doomed:
            await self._redis.unlink(*doomed)


_OUTCOMES = (Outcome.REPEATED, Outcome.ACCEPTED, Outcome.ERASED)


def _keys(generation: str, user: str) -> tuple[str, str, str, str, str]:
    tagged = f"recsys:{generation}:{{{user}}}"
    return f"{tagged}:u", f"{tagged}:t", f"{tagged}:w", f"{tagged}:e", f"{tagged}:n"


def exposure_keys(user: str) -> tuple[str, str, str, str]:
    """Return the keys of the exposures, their times, the actions and their times, of the user with a digest."""
    tagged = f"{_SHOWN}{{{user}}}"
    return f"{tagged}:x", f"{tagged}:xt", f"{tagged}:a", f"{tagged}:at"


def erasure_key(user: str) -> str:
    """Return the key of the erasure of the user with a digest."""
    return f"{_ERASURES}{{{user}}}"


def _fact_key(generation: str, name: str) -> str:
    return f"recsys:{generation}:{name}"


def _failures(answers: Sequence[Any]) -> list[Exception]:
    return [answer for answer in answers if isinstance(answer, Exception)]


def _chunks(sequence: Sequence[Each]) -> Iterator[Sequence[Each]]:
    return (sequence[start : start + _CHUNK] for start in range(0, len(sequence), _CHUNK))


def _user_ids(generation: str, *, users: Sequence[str]) -> list[RedisCommand]:
    return [("HGET", _keys(generation, user)[0], "user_id") for user in users]


def _scan(generation: str, *, users: Sequence[str]) -> list[RedisCommand]:
    keys = (_keys(generation, user) for user in users)
    return [("EVALSHA", _SCAN_SHA, 4, *each[:3], each[4], 2**31) for each in keys]


def _erase(generation: str, *, erasures: Sequence[Erasure]) -> list[RedisCommand]:
    """
    Return the commands that note *erasures* and remove their users from all generations.

    A replacement may be filling the next generation, and instances that are late may have written into earlier ones.
    """
    generations = range(int(generation) + 2)
    keys = [
        [
            erasure_key(each.user),
            *exposure_keys(each.user),
            *(key for number in generations for key in _keys(str(number), each.user)),
        ]
        for each in erasures
    ]
    return [
        ("EVALSHA", _ERASE_SHA, len(own), *own, each.at_us, int(each.readmitted))
        for own, each in zip(keys, erasures, strict=True)
    ]


def _show_erasures(_generation: str, *, keys: Sequence[str]) -> list[RedisCommand]:
    return [("HMGET", key, "at_us", "readmitted") for key in keys]


def _read_erasures(keys: Sequence[str], answers: Sequence[list[str]]) -> list[Erasure]:
    users = (key[len(_ERASURES) + 1 : -1] for key in keys)
    return [
        Erasure(user, int(at_us), readmitted == "1") for user, (at_us, readmitted) in zip(users, answers, strict=True)
    ]


def _read(user: str, times: str, avoided: str, *, history: int) -> list[RedisCommand]:
    """
    Return the commands that read one consistent state of a user.

    A transaction costs Redis 10 us. A script costs 40, for running Lua and encoding its tables, and 50 more if it
    returned times and weights, which requests do not need.
    """
    # From 0 to -1 would be all of them.
    places = (0, history - 1) if history else (1, 0)
    newest = (("ZRANGE", key, *places) for key in (times, avoided))
    return [("MULTI",), ("HGETALL", user), *newest, ("EXEC",)]


_READ_LENGTH = 5


def _known(user_id: str, profile: list[Any], *lists: list[str] | Exception) -> KnownUser | None:
    if any(isinstance(items, Exception) for items in lists):
        raise TypeError("a command of the transaction failed")
    found = _fields(profile)
    return KnownUser(*(user_id, *_profile(found), *lists)) if AGE_GROUP in found else None


def _record(user_id: str, profile: list[Any], items: list[str], weights: list[str]) -> UserRecord:
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
    counts, as_of_us = (int(found.get(name) or 0) for name in _COUNTERS), found.get("as_of_us")
    attributes = tuple(_attribute(name, found[name]) for name in sorted(found) if name.startswith(_ATTRIBUTE))
    return found[AGE_GROUP], *counts, None if as_of_us is None else int(as_of_us), attributes


def _attribute(field: str, value: str) -> UserAttribute:
    at_us, _, values = value.partition("|")
    return UserAttribute(field.removeprefix(_ATTRIBUTE), int(at_us), _decode_values(values))


def _place(connection: Mapping[str, Any]) -> str:
    host, port, database = (connection.get(name) for name in ("host", "port", "db"))
    return f"Redis at {host or 'localhost'}:{port or 6379}, database {database or 0}"


class _TranslatedRedisErrors:
    """
    Turns Redis' errors into the port's. Messages hold no user id and no credentials.

    A class, because a context manager made with `contextmanager` costs a read 1 us.
    """

    def __init__(self, place: str) -> None:
        self._place = place

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, ResponseError):
            # An answer begins with a code in capitals. The rest may name keys.
            code = str(error).partition(" ")[0]
            if code == "WRONGTYPE" or "not an integer" in str(error) or "not a valid float" in str(error):
                raise self._foreign(f"a key has another type ({code})") from error
            raise StoreUnavailableError(f"{self._place}: it refuses commands ({code}); see its log") from error
        if isinstance(error, RedisError):
            raise StoreUnavailableError(
                f"{self._place}: no answer ({type(error).__name__}); check that it runs there and the password"
            ) from error

    def generation(self, found: str | None) -> str:
        """Return the generation that the pointer names, checked."""
        if found and not (found.isascii() and found.isdecimal()):
            raise self._foreign(f"{_POINTER} holds no number")
        return found or "0"

    def decode(self, read: Callable[[], Read]) -> Read:
        """Return what *read* makes of an answer; what it cannot read becomes `StoreFormatError`."""
        try:
            return read()
        except (ValueError, TypeError) as error:
            raise self._foreign("a value cannot be read") from error

    def _foreign(self, fault: str) -> StoreFormatError:
        return StoreFormatError(
            f"{self._place}: {fault}, so another program writes recsys:* there; choose another database"
        )
