"""
Keep erased users out of all feature stores of a state directory, and out of new models.

Each import makes a new store, and a running pipeline keeps the store that it has opened. An erasure therefore reaches
one store first, and `spread` brings it to the others.
"""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import aclosing, suppress
from pathlib import Path

from offline.state import StateDirectory, StateError
from recstore.erasures import Erasure, digest_user, list_erased
from recstore.port import StoreError
from recstore.sqlite import SqliteStore
from recstore.urls import open_store
from recsys.records import UserRecord

ERASED_UNTIL = "erased_until_us"


class ErasedMeanwhileError(StateError):
    """A user was erased while a training used the user's data; the message says what to do."""


def spread(state: StateDirectory) -> list[Erasure]:
    """
    Bring the newest erasures and readmissions of all stores to all of them; return them.

    A store that cannot be read is left out. The function rewrites files that may hold remains of removed users.
    """
    return asyncio.run(_spread(state.stores()))


async def _spread(paths: Sequence[Path]) -> list[Erasure]:
    newest: dict[str, Erasure] = {}
    for path in paths:
        with suppress(StoreError):
            async with aclosing(SqliteStore(path)) as store:
                for each in await store.erasures():
                    newest[each.user] = max(newest.get(each.user, each), each, key=lambda erasure: erasure.at_us)
    for path in paths if newest else ():
        with suppress(StoreError):
            async with aclosing(SqliteStore(path)) as store:
                await store.adopt(newest.values())
                if not await store.is_scrubbed():
                    await store.scrub()
    return sorted(newest.values(), key=lambda each: each.user)


async def list_erasures(url: str, *, password: str | None = None) -> list[Erasure]:
    """
    Return the erasures of the store at *url*.

    Raises:
        StoreError: the store cannot be read.
    """
    async with aclosing(open_store(url, password=password)) as store:
        return await store.erasures()


def erasure_facts(erasures: Iterable[Erasure]) -> dict[str, int]:
    """Return the time of the newest erasure that a training takes into account, for the manifest."""
    newest = max((each.at_us for each in erasures if not each.readmitted), default=None)
    return {} if newest is None else {ERASED_UNTIL: newest}


def count_missed(erasures: Iterable[Erasure], *, known_us: int) -> int:
    """Return the number of *erasures* after *known_us*, the `ERASED_UNTIL` of a training, or -1 if it knows none."""
    return sum(each.at_us > known_us for each in erasures if not each.readmitted)


def without_erased(records: Sequence[UserRecord], erasures: Iterable[Erasure]) -> Sequence[UserRecord]:
    """Return *records* without those of erased users."""
    erased = list_erased(erasures)
    return [each for each in records if digest_user(each.user_id) not in erased] if erased else records


def check_still_wanted(records: Sequence[UserRecord], erasures: Iterable[Erasure]) -> None:
    """
    Check that no user of *records* is erased.

    Raises:
        ErasedMeanwhileError: users were erased after the training began.
    """
    if lost := len(records) - len(without_erased(records, erasures)):
        raise ErasedMeanwhileError(
            f"{lost} of the users were erased during the training, and the new model would contain them; "
            "nothing was changed; run the same command again"
        )
