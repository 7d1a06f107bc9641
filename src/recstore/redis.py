"""
A feature store in Redis, which instances on several machines can share.

A call takes one round trip for any number of users or events: its commands go together, and each event is one script.
"""

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec
from redis.asyncio.connection import AbstractConnection, RedisSSLContext, SSLConnection
from redis.exceptions import NoScriptError, RedisError

from chassis.wire.redis_link import RedisCommand, RedisLink
from recstore.counters import DEDUPLICATION_WINDOW_S, countable
from recstore.erasures import Erasure, Removed, digest_user, list_erased
from recstore.port import QUICK_BYTES, EventOutcome, StoreUnavailableError
from recstore.redis_database import RedisDatabase
from recstore.redis_keys import ERASURES, LASTING, POINTER, erasure_key, exposure_keys, fact_key, user_keys
from recstore.redis_records import READ_LENGTH, known_user, read_alone, read_known, user_record, write_record
from recstore.redis_scripts import APPLY, ERASE, OUTCOMES, SCAN, SCRIPTS, UPDATE
from recsys.contracts.wire import Features
from recsys.declaration.types import Declaration
from recsys.features import UNKNOWN_AGE
from recsys.records import AGE_GROUP, Interaction, KnownUser, UserRecord, UserUpdate

Each = TypeVar("Each")
Event = TypeVar("Event", bound=Interaction | UserUpdate)
Fact = TypeVar("Fact", bound=msgspec.Struct)

TIMEOUT_S = 0.5
_CHUNK = 200


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
        self._database = RedisDatabase(url, password=password, timeout_s=TIMEOUT_S)
        self._errors = self._database.errors
        self._tls: RedisSSLContext | None = None
        self._link = RedisLink(self._connection, timeout_s=TIMEOUT_S)
        self._window_us = int(window_s * 1_000_000)
        self._ttl_s = ttl_s
        self._clock = clock
        self._generation = "0"

    def _connection(self) -> AbstractConnection:
        """Return a connection for the link, which is not connected yet."""
        pool = self._database.client.connection_pool
        # The link has a timeout for each call, and its reader waits without one. In protocol 2 the server sends nothing
        # but answers.
        made = pool.connection_class(**{**pool.connection_kwargs, "socket_timeout": None, "protocol": 2})
        if isinstance(made, SSLConnection):
            # A context contains all trusted certificates, almost a megabyte, so the attempts to connect share one.
            self._tls = made.ssl_context = self._tls or made.ssl_context
        return made

    async def read(self, user_ids: Sequence[str], *, history: int) -> list[KnownUser | None]:
        """Return each of *user_ids*."""
        try:
            answers = await self._run(user_ids, lambda g, user_id: read_known(g, digest_user(user_id), history=history))
            answers = answers[READ_LENGTH - 1 :: READ_LENGTH]
        except StoreUnavailableError as error:
            if not str(error.__cause__).startswith("OOM "):
                raise
            # A full Redis refuses transactions, even those that only read.
            answers = await self._run(user_ids, lambda g, user_id: read_alone(g, digest_user(user_id), history=history))
        found = zip(user_ids, answers, strict=True)
        return self._errors.decode(lambda: [known_user(user_id, *parts) for user_id, parts in found])

    async def record(self, user_id: str) -> UserRecord | None:
        """Return the whole record of a user."""
        (answer,) = await self._run([digest_user(user_id)], _scan)
        return None if answer is None else self._errors.decode(partial(user_record, user_id, *answer))

    async def apply(self, interactions: Sequence[Interaction]) -> list[EventOutcome]:
        """Count each of *interactions* with one script."""
        now_us = int(self._clock() * 1_000_000)

        def arguments(each: Interaction) -> tuple[Any, ...]:
            counted = (each.counter or "", each.duration_ms, each.time_us, each.item_id or "", repr(each.weight))
            return (each.digest(), now_us, self._window_us, UNKNOWN_AGE, *counted, self._ttl_s, each.user_id)

        return await self._change(APPLY, interactions, arguments)

    async def update(self, updates: Sequence[UserUpdate]) -> list[EventOutcome]:
        """Take over the values of each of *updates* with one script."""

        def arguments(each: UserUpdate) -> tuple[Any, ...]:
            age_group = next(iter(each.values.get(AGE_GROUP, ())), UNKNOWN_AGE)
            values = (text for attribute in each.attributes() for text in (attribute.name, attribute.encoded))
            return (each.at_us, UNKNOWN_AGE, self._ttl_s, each.user_id, age_group, *values)

        return await self._change(UPDATE, updates, arguments)

    async def _change(
        self, script: str, events: Sequence[Event], arguments: Callable[[Event], tuple[Any, ...]]
    ) -> list[EventOutcome]:
        def commands(generation: str, each: Event) -> list[RedisCommand]:
            user = digest_user(each.user_id)
            return [("EVALSHA", script, 6, *user_keys(generation, user), erasure_key(user), *arguments(each))]

        return [OUTCOMES[answer] for answer in await self._run(events, commands)]

    async def population(self) -> Features | None:
        """Return the defaults for unknown users; None before the first `replace`."""
        return await self._fact("population", Features)

    async def declaration(self) -> Declaration | None:
        """Return the declaration by which the store was filled."""
        return await self._fact("declaration", Declaration)

    async def _fact(self, name: str, type_: type[Fact]) -> Fact | None:
        (found,) = await self._run([name], lambda generation, each: [("GET", fact_key(generation, each))])
        return self._errors.decode(lambda: msgspec.json.decode(found, type=type_)) if found else None

    async def replace(
        self, records: Iterable[UserRecord], *, population: Features, declaration: Declaration | None = None
    ) -> int:
        """
        Fill the next generation with *records*, point to it, and delete the generation before.

        Events that are accepted during a replacement are lost, so pause the senders. Replacements must not overlap.
        """
        client = self._database.client
        with self._errors:
            before = await self._pointed_at()
            generation = str(int(before) + 1)
            # An interrupted replacement leaves keys, and so do events that reached a former generation late.
            await self._delete_others(before)
            erased = list_erased(await self.erasures())
            count = await self._fill(generation, records, erased=erased)
            await client.set(fact_key(generation, "population"), msgspec.json.encode(population))
            if declaration:
                await client.set(fact_key(generation, "declaration"), declaration.encode())
            # An erasure that is noted after this look removes its user from the new generation too.
            for user in list_erased(await self.erasures()) - erased:
                await client.delete(*user_keys(generation, user))
            await self._send([("SET", POINTER, generation)])
        self._generation = generation
        # The content is replaced. The next replacement deletes the keys that cannot be deleted now.
        with contextlib.suppress(RedisError, StoreUnavailableError):
            await self._delete_others(generation)
        return count

    async def scan(self) -> AsyncIterator[UserRecord]:
        """Yield every record by user id; may miss users that are added or deleted during the scan."""
        with self._errors:
            generation = await self._pointed_at()
        prefix, suffix = user_keys(generation, "|")[0].split("|")
        # Redis may return a key twice.
        users = list({key[len(prefix) : -len(suffix)] async for key in self._database.keys(f"{prefix}*{suffix}")})
        found: list[tuple[str, str]] = []
        for some in _chunks(users):
            answers = await self._run(some, _user_id)
            # A user may have been removed since.
            found += [(user_id, user) for user_id, user in zip(answers, some, strict=True) if user_id is not None]
        for pairs in _chunks(sorted(found)):
            answers = await self._run([user for _, user in pairs], _scan)
            for (user_id, _), answer in zip(pairs, answers, strict=True):
                if answer is not None:
                    yield self._errors.decode(partial(user_record, user_id, *answer))

    async def adopt(self, erasures: Iterable[Erasure]) -> Removed:
        """Take over newer *erasures*, each with one script."""
        removed = Removed()
        # A script that runs for a former generation runs again for the current one, and then finds nothing to count.
        await self._run([], _erase)
        for some in _chunks(list(erasures)):
            removed += sum((Removed(*answer) for answer in await self._run(some, _erase)), Removed())
        return removed

    async def erase(self, user_id: str, *, at_us: int) -> Removed:
        """Remove a user with one script."""
        return await self.adopt([Erasure(digest_user(user_id), at_us)])

    async def erasures(self) -> list[Erasure]:
        """Return the erasures; the cost is that of listing all keys."""
        found: list[Erasure] = []
        for some in _chunks([key async for key in self._database.keys(f"{ERASURES}*")]):
            answers = await self._run(some, lambda _, key: [("HMGET", key, "at_us", "readmitted")])
            found += self._errors.decode(partial(_read_erasures, some, answers))
        return found

    async def scrub(self, *, quickly: bool = False) -> bool:
        """Let Redis rewrite its append-only file or its snapshot in the background, if it keeps them."""
        self._errors.check_open()
        client = self._database.client
        with self._errors:
            if quickly and (await client.info("memory"))["used_memory"] > QUICK_BYTES:
                return False
            if (await client.info("persistence"))["aof_enabled"]:
                await client.bgrewriteaof()
            elif (await client.config_get("save")).get("save"):
                await client.bgsave(schedule=True)
            return True

    async def aclose(self) -> None:
        """Close the connections."""
        await self._link.aclose()
        await self._database.aclose()

    async def _pointed_at(self) -> str:
        (found,) = await self._send([("GET", POINTER)])
        return self._checked(found)

    def _checked(self, generation: str | None) -> str:
        """Return the *generation* that the pointer names, which is a number."""
        if generation and not (generation.isascii() and generation.isdecimal()):
            raise self._errors.foreign(f"{POINTER} holds no number")
        return generation or "0"

    async def _run(
        self, subjects: Sequence[Each], commands: Callable[[str, Each], Sequence[RedisCommand]]
    ) -> list[Any]:
        """
        Send the *commands* about each of *subjects* for the generation known here, and return the answers.

        The last command reads the current generation. If it is the same, all commands reached it in time. If it has
        changed, all commands are sent again for the new generation, because reads found old content, and events
        counted in the former generation are deleted with it.
        """
        with self._errors:
            while True:
                generation = self._generation
                own = [command for each in subjects for command in commands(generation, each)]
                *answers, found = await self._send([*own, ("GET", POINTER)])
                if (found or "0") == generation:
                    return answers
                self._generation = self._checked(found)

    async def _send(self, commands: Sequence[RedisCommand]) -> list[Any]:
        answers = await self._link.ask(commands)
        failures = _failures(answers)
        if failures and all(isinstance(failure, NoScriptError) for failure in failures):
            # Redis was restarted or never had the scripts. None of them ran.
            failures = _failures(await self._link.ask([("SCRIPT", "LOAD", text) for text in SCRIPTS.values()]))
            if not failures:
                answers = await self._link.ask(commands)
                failures = _failures(answers)
        if failures:
            raise failures[0]
        return answers

    async def _fill(self, generation: str, records: Iterable[UserRecord], *, erased: set[str]) -> int:
        count = 0
        pipeline = self._database.client.pipeline(transaction=False)
        for record in countable(records):
            digest = digest_user(record.user_id)
            if digest in erased:
                continue
            write_record(pipeline, generation, digest, record, ttl_s=self._ttl_s)
            count += 1
            if count % _CHUNK == 0:
                await pipeline.execute()
        await pipeline.execute()
        return count

    async def _delete_others(self, generation: str) -> None:
        """Delete all keys of other generations than *generation*."""
        kept = (*LASTING, fact_key(generation, ""))
        doomed: list[str] = []
        async for key in self._database.keys("recsys:*"):
            if not key.startswith(kept):
                doomed.append(key)
            if len(doomed) == _CHUNK:
                await self._database.client.unlink(*doomed)
                doomed.clear()
        if doomed:
            await self._database.client.unlink(*doomed)


def _failures(answers: Sequence[Any]) -> list[Exception]:
    return [answer for answer in answers if isinstance(answer, Exception)]


def _chunks(sequence: Sequence[Each]) -> Iterator[Sequence[Each]]:
    return (sequence[start : start + _CHUNK] for start in range(0, len(sequence), _CHUNK))


def _user_id(generation: str, user: str) -> list[RedisCommand]:
    return [("HGET", user_keys(generation, user)[0], "user_id")]


def _scan(generation: str, user: str) -> list[RedisCommand]:
    return [("EVALSHA", SCAN, 5, *user_keys(generation, user))]


def _erase(generation: str, erasure: Erasure) -> list[RedisCommand]:
    """
    Return the command that notes *erasure* and removes its user from all generations.

    A replacement may be filling the next generation, and instances that are late may have written into earlier ones.
    """
    generations = map(str, range(int(generation) + 2))
    keys = [
        erasure_key(erasure.user),
        *exposure_keys(erasure.user),
        *(key for each in generations for key in user_keys(each, erasure.user)),
    ]
    return [("EVALSHA", ERASE, len(keys), *keys, erasure.at_us, int(erasure.readmitted))]


def _read_erasures(keys: Sequence[str], answers: Sequence[list[str]]) -> list[Erasure]:
    users = (key[len(ERASURES) + 1 : -1] for key in keys)
    return [
        Erasure(user, int(at_us), readmitted == "1") for user, (at_us, readmitted) in zip(users, answers, strict=True)
    ]
