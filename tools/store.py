"""`./run.sh store copy --from URL --to URL`: replace the content of one feature store by that of another."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace

from tqdm import tqdm

from recsys.stores.content import read_content, write_content
from recsys.stores.port import StoreError, StoreMissingError
from recsys.stores.urls import check_store_url, open_store, same_place

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Copy one store into another; return the exit status."""
    options = _parse(arguments)
    try:
        count = asyncio.run(_copy(options))
    except StoreError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the target holds its former content, or all of the new", file=sys.stderr)
        return _INTERRUPTED
    print(f"copied {count} users")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./run.sh store", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    copy = verbs.add_parser("copy", help="replace the content of one store by that of another")
    copy.add_argument(
        "--from",
        dest="source",
        required=True,
        type=_store_url,
        metavar="URL",
        help="sqlite:///FILE or redis://HOST:PORT/DB; must exist and hold users",
    )
    copy.add_argument(
        "--to",
        dest="target",
        required=True,
        type=_store_url,
        metavar="URL",
        help="a store of the same kinds; its content is replaced",
    )
    copy.add_argument(
        "--user-ttl-s", type=int, default=0, metavar="SECONDS", help="to Redis: the USER_TTL_S of its extract_features"
    )
    copy.add_argument("--allow-empty", action="store_true", help="empty the target if the source holds no users")
    options = parser.parse_args(arguments)
    if same_place(options.source, options.target):
        copy.error("--from and --to name the same store")
    if options.user_ttl_s < 0:
        copy.error("--user-ttl-s must be at least 0")
    return options


def _store_url(text: str) -> str:
    try:
        check_store_url(text)
    except StoreError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


async def _copy(options: argparse.Namespace) -> int:
    async with aclosing(open_store(options.source)) as source:
        try:
            content = await read_content(source, allow_empty=options.allow_empty)
        except StoreMissingError as error:
            raise StoreMissingError(f"{error}; check --from, or insist with --allow-empty") from error
    shown = replace(content, records=tqdm(content.records, desc="copying", unit="user", disable=None))
    # Opened second, so that a source that cannot be read makes no target.
    async with aclosing(open_store(options.target, create=True, ttl_s=options.user_ttl_s)) as target:
        return await write_content(target, shown)


if __name__ == "__main__":
    sys.exit(main())
