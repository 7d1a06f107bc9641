"""Users with planted tastes that shift on a day, the store that holds them, and the model that serves them."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from offline.decision import TrainingDecision
from offline.matrix import make_ratings
from offline.state import Current, StateDirectory
from offline.training import suggest, train
from recstore.sqlite import SqliteStore
from recsys.features import compute_features, population_defaults
from recsys.records import HistoryItem, UserRecord

DAY_US = 86_400_000_000
KINDS, OF_A_KIND, USERS = 6, 20, 150


def make_records(
    *, days: int, until_day: int | None = None, shift_day: int | None = None, seed: int = 0
) -> list[UserRecord]:
    """
    Return users who each meet one item a day of the kind they like; from *shift_day* on, they like the next kind.

    The records hold the first *until_day* days only.
    """
    generator = np.random.default_rng(seed)
    records = []
    for user in range(USERS):
        history: dict[str, HistoryItem] = {}
        for day in range(days):
            kind = (user + (shift_day is not None and day >= shift_day)) % KINDS
            item_id = f"i{kind * OF_A_KIND + int(generator.integers(OF_A_KIND)):03}"
            if until_day is None or day < until_day:
                history[item_id] = HistoryItem(item_id, 1.0, (day + 1) * DAY_US + user)
        newest_first = sorted(history.values(), key=lambda item: (-item.time_us, item.item_id))
        records.append(UserRecord(f"u{user:03}", "unknown", views=days, history=newest_first))
    return records


def relabelled(records: Sequence[UserRecord], *, seed: int, share: float = 1.0) -> list[UserRecord]:
    """Give a *share* of all pairs of user and item a random item of the catalogue."""
    generator = np.random.default_rng(seed)
    catalogue = sorted({item.item_id for record in records for item in record.history})

    def relabel(item: HistoryItem) -> HistoryItem:
        if generator.random() >= share:
            return item
        return msgspec.structs.replace(item, item_id=catalogue[int(generator.integers(len(catalogue)))])

    return [
        msgspec.structs.replace(
            record, history=list({each.item_id: each for each in map(relabel, record.history)}.values())
        )
        for record in records
    ]


def put_serving(folder: Path, records: Sequence[UserRecord]) -> StateDirectory:
    """Make a model of *records* the current one of a new state directory."""
    state = StateDirectory(folder)
    with state.locked():
        train(records, items={}, folder=state.draft("model"), dataset="test")
        state.advance(Current("", state.publish(state.draft("model"), "models", "first"), "test"))
    return state


def fill(path: Path, records: Sequence[UserRecord]) -> str:
    async def write() -> None:
        store = SqliteStore(path, create=True)
        await store.replace(records, population=population_defaults([compute_features(each) for each in records]))
        await store.aclose()

    asyncio.run(write())
    return f"sqlite:///{path}"


def put_changed(folder: Path) -> StateDirectory:
    """Return a state directory whose store has eight days, with other tastes, more than its model."""
    state = put_serving(folder, make_records(days=8))
    fill(folder / "stores/1-test.db", make_records(days=16, shift_day=8))
    with state.locked():
        state.advance(Current("stores/1-test.db", state.require_current().model, "test"))
    return state


def choose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train with the suggested settings, because a choice costs seconds."""
    monkeypatch.setattr(
        "offline.material.decide", lambda records, **_: TrainingDecision(suggest(make_ratings(records)), [])
    )
