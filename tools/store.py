"""
`./run.sh store copy --from URL --to URL`: replace the content of one feature store by that of another.

FEATURE_STORE_PASSWORD holds the password of a Redis whose URL has none.
"""

import asyncio
import os
import sys
from contextlib import aclosing

from tqdm import tqdm

from offline.catalogue import put_entries, read_entries
from recstore.port import StoreError, StoreMissingError
from recstore.urls import open_store
from recsys.features import UNKNOWN_FEATURES

_INTERRUPTED = 130


def copy(
    *,
    action: str,  # noqa: ARG001 - there is one
    source: str,
    target: str,
    user_ttl_s: int = 0,
    allow_empty: bool = False,
) -> int:
    """Copy one store into another; return the exit status."""
    try:
        count = asyncio.run(copy_store(source, target, user_ttl_s=user_ttl_s, allow_empty=allow_empty))
    except StoreError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "interrupted: the target holds its former users or all new ones, perhaps with its former catalogue; run it again",
            file=sys.stderr,
        )
        return _INTERRUPTED
    print(f"users copied: {count}")
    return 0


async def copy_store(source_url: str, target_url: str, *, user_ttl_s: int = 0, allow_empty: bool = False) -> int:
    """
    Replace the content of one store by that of another; return the number of users.

    The copy does not include the events seen: pause the senders, or an event delivered to both stores counts twice.

    Raises:
        StoreError: A store cannot be used, or the source holds no users and *allow_empty* is off.
    """
    password = os.environ.get("FEATURE_STORE_PASSWORD")
    async with aclosing(open_store(source_url, password=password)) as source:
        # `replace` takes a plain iterable, which a store may walk in a thread. Records are small enough for memory.
        records = [record async for record in source.scan()]
        population = await source.population() or UNKNOWN_FEATURES
        declaration = await source.declaration()
        erasures = await source.erasures()
    if not records and not allow_empty:
        raise StoreMissingError(
            "the source holds no users, so a copy would empty the target; check --from, or insist with --allow-empty"
        )
    shown = tqdm(records, desc="copying", unit="user", disable=None)
    # Opened second, so that a source that cannot be read makes no target.
    async with aclosing(open_store(target_url, create=True, password=password, ttl_s=user_ttl_s)) as target:
        # The target keeps its own erasures, and leaves out the users of both.
        await target.adopt(erasures)
        count = await target.replace(shown, population=population, declaration=declaration)
    async with (
        aclosing(open_store(source_url, password=password)) as source,
        aclosing(open_store(target_url, password=password)) as target,
    ):
        # Users may have been erased from the source while it was copied.
        await target.adopt(await source.erasures())
    entries = await read_entries(source_url, password=password)
    await put_entries(target_url, entries.values(), password=password)
    return count
