"""`./run.sh users import FILE`: change attributes of users in a feature store."""

import asyncio
import os
import sys
import time
from collections import Counter
from contextlib import aclosing
from functools import partial
from pathlib import Path

from functions.extract_features.user_updates import read_update
from offline.inputs import DataOptions, load_users
from offline.reading.columns import Mapped, parse_mapping
from offline.reading.faults import DataError
from offline.state import StateDirectory, StateError
from recstore.port import EventOutcome, StoreError
from recstore.urls import open_store
from recsys.declaration.reader import default_declaration
from recsys.declaration.types import Declaration
from recsys.records import AGE_GROUP, UserUpdate
from tools.event_lines import read_event_lines

_CHUNK = 500

Values = dict[str, tuple[str, ...]]


def import_users(file: Path, *, map_: str | None, store: str | None, state_dir: Path) -> int:
    """Write the attributes in *file* into a store; return the exit status."""
    try:
        state = StateDirectory(state_dir)
        url = store or state.store_url(state.require_current())
        told = asyncio.run(_import(url, file, mapped=parse_mapping(map_)))
    except (DataError, StateError, StoreError) as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"users updated: {told[EventOutcome.ACCEPTED]:,}, with newer values: {told[EventOutcome.REPEATED]:,}, "
        f"erased before: {told[EventOutcome.ERASED]:,}"
    )
    return 0


async def _import(url: str, file: Path, *, mapped: Mapped) -> Counter[EventOutcome]:
    told: Counter[EventOutcome] = Counter()
    async with aclosing(open_store(url, password=os.environ.get("FEATURE_STORE_PASSWORD"))) as opened:
        declaration = await opened.declaration() or default_declaration()
        at_us = time.time_ns() // 1000
        updates = [
            UserUpdate(user, at_us, values) for user, values in read_users(file, declaration, mapped=mapped).items()
        ]
        if not updates:
            known = ", ".join(dict.fromkeys([AGE_GROUP, *declaration.users.attributes]))
            raise DataError(f"{file}: no user has a value of a declared attribute; declared are: {known}")
        for start in range(0, len(updates), _CHUNK):
            told.update(await opened.update(updates[start : start + _CHUNK]))
    return told


def read_users(file: Path, declaration: Declaration, *, mapped: Mapped) -> dict[str, Values]:
    """
    Return the values in *file* by user: JSON lines if it ends in `.jsonl`, else the users file of a training.

    Raises:
        DataError: the file cannot be used; the message lists faults with their lines.
    """
    if file.suffix != ".jsonl":
        return load_users(DataOptions(users=file, map=mapped, declaration=declaration))
    merged: dict[str, Values] = {}
    for update in read_event_lines(file, partial(read_update, attributes=declaration.users.attributes)):
        # The later of two lines about an attribute counts.
        merged[update.user_id] = merged.get(update.user_id, {}) | update.values
    return merged
