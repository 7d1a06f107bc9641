"""`./run.sh users`: show, erase and readmit a user of a feature store, and import attributes of users."""

import asyncio
import os
import sys
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from offline.state import StateDirectory, StateError
from recstore.port import StoreError
from recstore.urls import open_store
from recsys.contracts.wire import MAX_HISTORY
from recsys.features import compute_features
from recsys.records import KnownUser, UserRecord
from tools.erasure import erase, readmit
from tools.user_import import import_users

_SHOWN = 20


def users(
    *,
    action: str,
    user: str,
    store: str | None = None,
    map_: str | None = None,
    as_json: bool = False,
    state_dir: Path,
) -> int:
    """Show, erase or readmit a user, or import the file that *user* names; return the exit status."""
    if action == "import":
        return import_users(Path(user), map_=map_, store=store, state_dir=state_dir)
    if action == "erase":
        return erase(user, store=store, state_dir=state_dir)
    if action == "readmit":
        return readmit(user, store=store, state_dir=state_dir)
    return _show(user, store=store, as_json=as_json, state_dir=state_dir)


def _show(user: str, *, store: str | None, as_json: bool, state_dir: Path) -> int:
    try:
        state = StateDirectory(state_dir)
        url = store or state.store_url(state.require_current())
        record = asyncio.run(_read(url, user))
    except (StateError, StoreError) as error:
        print(error, file=sys.stderr)
        return 1
    if record is None:
        print(f"{user}: the feature store holds nothing of this user; check the id", file=sys.stderr)
        return 1
    known = record.known(history=MAX_HISTORY)
    features = msgspec.to_builtins(compute_features(known))
    if as_json:
        stored = {"attributes": known.user_attributes, "history": msgspec.to_builtins(record.history)}
        shown = {**msgspec.to_builtins(known), **stored, "features": features}
        print(msgspec.json.encode(shown).decode())
        return 0
    for name, value in (_rows(known) | features).items():
        print(f"{name:22} {value}")
    return 0


async def _read(url: str, user: str) -> UserRecord | None:
    async with aclosing(open_store(url, password=os.environ.get("FEATURE_STORE_PASSWORD"))) as opened:
        return await opened.record(user)


def _rows(known: KnownUser) -> dict[str, object]:
    newest = "never" if known.as_of_us is None else datetime.fromtimestamp(known.as_of_us / 1e6, UTC).isoformat()
    more = f" and {len(known.recent) - _SHOWN} more" if len(known.recent) > _SHOWN else ""
    return {
        "user": known.user_id,
        "newest interaction": newest,
        "views": known.views,
        "clicks": known.clicks,
        "purchases": known.purchases,
        "sessions": known.sessions,
        "items, newest first": (", ".join(known.recent[:_SHOWN]) or "none") + more,
        **{f"attribute {name}": ", ".join(values) for name, values in known.user_attributes.items()},
        "avoided items": ", ".join(known.avoided[:_SHOWN]) or "none",
    }
