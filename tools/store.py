"""`./run.sh store copy --from URL --to URL`: replace the content of one feature store by that of another."""

import asyncio
import sys
from contextlib import aclosing
from dataclasses import replace

from tqdm import tqdm

from recsys.stores.content import read_content, write_content
from recsys.stores.port import StoreError, StoreMissingError
from recsys.stores.urls import open_store

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
        count = asyncio.run(_copy(source, target, user_ttl_s=user_ttl_s, allow_empty=allow_empty))
    except StoreError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the target holds its former content, or all of the new", file=sys.stderr)
        return _INTERRUPTED
    print(f"copied {count} users")
    return 0


async def _copy(source_url: str, target_url: str, *, user_ttl_s: int, allow_empty: bool) -> int:
    async with aclosing(open_store(source_url)) as source:
        try:
            content = await read_content(source, allow_empty=allow_empty)
        except StoreMissingError as error:
            raise StoreMissingError(f"{error}; check --from, or insist with --allow-empty") from error
    shown = replace(content, records=tqdm(content.records, desc="copying", unit="user", disable=None))
    # Opened second, so that a source that cannot be read makes no target.
    async with aclosing(open_store(target_url, create=True, ttl_s=user_ttl_s)) as target:
        return await write_content(target, shown)
