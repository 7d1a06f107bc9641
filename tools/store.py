"""`./run.sh store copy --from URL --to URL`: copy a feature store into another one, which it replaces."""

import argparse
import asyncio
import sys
from collections.abc import Iterator, Sequence

from tqdm import tqdm

from recsys.stores.opening import open_store
from recsys.stores.port import FeatureStore, StoreError, UserRecord


def main(arguments: Sequence[str] | None = None) -> int:
    """Copy as told; return the exit status."""
    parser = argparse.ArgumentParser(prog="./run.sh store", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    copy = verbs.add_parser("copy", help="replace one store's content by another's")
    copy.add_argument(
        "--from", dest="source", required=True, metavar="URL", help="sqlite:///FILE or redis://HOST:PORT/DB"
    )
    copy.add_argument("--to", dest="target", required=True, metavar="URL", help="likewise; its content is replaced")
    copy.add_argument(
        "--user-ttl-s", type=int, default=0, metavar="SECONDS", help="to Redis: the USER_TTL_S of its extract_features"
    )
    options = parser.parse_args(arguments)
    if options.source == options.target:
        parser.error("--from and --to are the same store")
    if options.user_ttl_s < 0:
        parser.error("--user-ttl-s is below 0")
    try:
        count = asyncio.run(_copy(options.source, options.target, user_ttl_s=options.user_ttl_s))
    except StoreError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"copied {count} users")
    return 0


async def _copy(source_url: str, target_url: str, *, user_ttl_s: int) -> int:
    source = open_store(source_url)
    try:
        target = open_store(target_url, ttl_s=user_ttl_s)
        try:
            return await copy_store(source, target)
        finally:
            await target.aclose()
    finally:
        await source.aclose()


async def copy_store(source: FeatureStore, target: FeatureStore) -> int:
    """
    Make *target* hold what *source* holds; return how many users.

    Events seen are not copied: let the senders pause, or an event delivered on both sides counts twice.
    """
    # Replacing takes a plain iterator, so that a store may walk it in a thread or a transaction of its own; the
    # records are small, and few users make a gigabyte.
    records = [record async for record in source.scan()]
    return await target.replace(_counted(records), population=await source.population())


def _counted(records: Sequence[UserRecord]) -> Iterator[UserRecord]:
    yield from tqdm(records, desc="copying", unit="user", disable=None)


if __name__ == "__main__":
    sys.exit(main())
