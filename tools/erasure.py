"""`./run.sh users erase USER` and `users readmit USER`: remove a user, and let a removed user come back."""

import asyncio
import os
import sqlite3
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, aclosing, closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Struct
from redis import Redis, RedisError

from chassis.wire.text import shown
from knbroker.erasures import TopicErasure
from knbroker.queue import note
from knbroker.topics import Topic, discard
from localkn import control
from localkn.errors import LocalknError, PlatformError
from localkn.state import PlatformDirectory
from offline.erasures import spread
from offline.state import StateDirectory, StateError
from recstore.erasures import Erasure, Removed, digest_user
from recstore.port import FeatureStore, StoreError, StoreFormatError, StoreUnavailableError
from recstore.urls import open_store, sqlite_url
from recsys.contracts.wire import MAX_ID_LENGTH

_LOCK_S = 5.0
_LETTERS, _PAGE = "recsys-letters", 1000


class StoreReceipt(Struct, frozen=True):
    """The numbers of removed users, items, marks of events, exposures and actions of one store."""

    store: str
    users: int
    items: int
    events: int
    exposures: int
    actions: int


class _Letter(Struct, frozen=True):
    attributes: dict[str, str] = {}
    data: msgspec.Raw = msgspec.Raw(b"null")


class _Structured(Struct, frozen=True):
    specversion: str
    subject: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")


class ErasureReceipt(Struct, frozen=True):
    """
    The proof of an erasure; it does not hold the user's id.

    Attributes:
        user_sha256: SHA-256 of the user id.
        erased_at: Time of the erasure.
        stores: The numbers of each feature store.
        queued_events: Events and dead letters removed from the queue of the local broker; null without a queue.
        dead_letters: Letters removed that the dead-letter sink of a cluster keeps in the Redis of the store.
        verified: Whether a second search found no data of the user in the stores.
        next: Further steps for the operator.
    """

    user_sha256: str
    erased_at: str
    stores: list[StoreReceipt]
    queued_events: int | None
    dead_letters: int
    verified: bool
    next: list[str]


def erase(user: str, *, store: str | None, state_dir: Path) -> int:
    """Remove a user from the stores and from the queue, and print the receipt; return the exit status."""
    if not 1 <= len(user) <= MAX_ID_LENGTH:
        print(f"the id of a user has 1 to {MAX_ID_LENGTH} characters, not {len(user)}; check it", file=sys.stderr)
        return 1
    at_us = time.time_ns() // 1000
    try:
        state = StateDirectory(state_dir)
        urls = [store] if store else _store_urls(state)
        removed = asyncio.run(_erase(urls, user, at_us=at_us))
        letters = sum(_remove_letters(url, user) for url in urls)
        queued = _discard(PlatformDirectory(state_dir / "platform"), user)
        # An event that was under way at the first search is refused now, so the second search finds all that remains.
        verified = all(each == Removed() for each in asyncio.run(_erase(urls, user, at_us=at_us, scrub=True)))
        if not store:
            spread(state)
    except (StateError, StoreError, LocalknError, sqlite3.Error) as error:
        print(f"{error}; the erasure is not complete: run the command again", file=sys.stderr)
        return 1
    receipt = ErasureReceipt(
        digest_user(user),
        datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(),
        [StoreReceipt(_shown(url), *msgspec.structs.astuple(each)) for url, each in zip(urls, removed, strict=True)],
        queued,
        letters,
        verified,
        _next_steps(was_known=any(each.users for each in removed)),
    )
    print(msgspec.json.format(msgspec.json.encode(receipt), indent=2).decode())
    return 0 if verified else 1


def readmit(user: str, *, store: str | None, state_dir: Path) -> int:
    """Let an erased user come back; return the exit status."""
    try:
        state = StateDirectory(state_dir)
        known = asyncio.run(_readmit([store] if store else _store_urls(state), user))
        if known:
            _keep_letters(PlatformDirectory(state_dir / "platform"), user)
    except (StateError, StoreError, LocalknError, sqlite3.Error) as error:
        print(error, file=sys.stderr)
        return 1
    if not known:
        print(f"{user}: this user is not erased; check the id", file=sys.stderr)
        return 1
    print(f"{user} is readmitted: events about actions from now on are counted")
    return 0


def _store_urls(state: StateDirectory) -> list[str]:
    state.require_current()
    return [sqlite_url(path) for path in state.stores()]


async def _erase(urls: Sequence[str], user: str, *, at_us: int, scrub: bool = False) -> list[Removed]:
    removed = []
    async with AsyncExitStack() as opened:
        for url in urls:
            store = await opened.enter_async_context(aclosing(_open(url)))
            removed.append(await store.erase(user, at_us=at_us))
            if (await store.read([user], history=1)) != [None]:
                raise StoreUnavailableError(f"{_shown(url)}: the user was readmitted during the erasure")
            if scrub:
                await store.scrub()
    return removed


async def _readmit(urls: Sequence[str], user: str) -> bool:
    """Readmit the user at all stores, after the erasure in each of them; return whether the user was erased."""
    digest = digest_user(user)
    async with AsyncExitStack() as opened:
        stores = [await opened.enter_async_context(aclosing(_open(url))) for url in urls]
        found = [each for store in stores for each in await store.erasures() if each.user == digest]
        newest = max(found, key=lambda each: each.at_us, default=None)
        if newest is None or newest.readmitted:
            return False
        at_us = max(time.time_ns() // 1000, newest.at_us + 1)
        for store in stores:
            await store.adopt([Erasure(digest, at_us, readmitted=True)])
    return True


def _discard(platform: PlatformDirectory, user: str) -> int | None:
    """Remove events about the user from the queue: through the broker if it runs, else in its file."""
    topic = Topic("user_id", user)
    try:
        answer = control.call(platform.socket("control"), "discard", **msgspec.structs.asdict(topic))
        return int(answer["discarded"])
    except PlatformError:
        path = platform.events / "queue.db"
        if not path.exists():
            return None
        with closing(sqlite3.connect(path, isolation_level=None, timeout=_LOCK_S)) as connection:
            discarded = discard(connection, topic)
        note(path, [TopicErasure.of(topic)])
        return discarded


def _keep_letters(platform: PlatformDirectory, user: str) -> None:
    """Let the broker keep dead letters about the user again; a broker that starts later learns it from `up`."""
    topic = Topic("user_id", user)
    with suppress(PlatformError):
        control.call(platform.socket("control"), "keep", **msgspec.structs.asdict(topic))


def _remove_letters(url: str, user: str) -> int:
    """Remove letters about the user that knative/components/eventing/dead_letters.py keeps."""
    if not url.startswith("redis"):
        return 0
    topic, password = Topic("user_id", user), os.environ.get("FEATURE_STORE_PASSWORD")
    try:
        with Redis.from_url(url, decode_responses=True, **({"password": password} if password else {})) as redis:
            members = (member for member, _ in redis.zscan_iter(_LETTERS, count=_PAGE))
            return sum(redis.zrem(_LETTERS, each) for each in members if _is_about(topic, each))
    except RedisError as error:
        raise StoreUnavailableError(
            f"{_shown(url)}: the dead letters cannot be read ({type(error).__name__})"
        ) from error


def _is_about(topic: Topic, member: str) -> bool:
    id_, _, letter = member.partition(" ")
    try:
        found = msgspec.json.decode(letter, type=_Letter)
    except msgspec.DecodeError as error:
        raise StoreFormatError(f"Redis key {_LETTERS}: {shown(id_)} is not a dead letter; remove it") from error
    if topic.is_of({"subject": unquote(found.attributes.get("subject", ""))}, bytes(found.data)):
        return True
    try:
        event = msgspec.json.decode(found.data, type=_Structured)
    except msgspec.DecodeError:
        return False
    return topic.is_of({"subject": event.subject}, bytes(event.data))


def _next_steps(*, was_known: bool) -> list[str]:
    steps = ["remove the user from files outside the pipeline: imported files, exports, backups, copies of stores"]
    trained = "run ./run.sh train --from-store and serve its model: the model in use learned from the user's items"
    return [trained, *steps] if was_known else steps


def _open(url: str) -> FeatureStore:
    return open_store(url, password=os.environ.get("FEATURE_STORE_PASSWORD"))


def _shown(url: str) -> str:
    """Return *url* without a password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else url
