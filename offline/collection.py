"""Collect the rows of a file into one record per user, as a feature store holds it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from offline.interactions import COUNTERS, Interactions
from offline.reading.lines import Row
from recstore.counters import split_ties
from recsys.declaration.types import WEIGHT_STEPS
from recsys.features import UNKNOWN_AGE
from recsys.records import HistoryItem, UserAttribute, UserRecord
from topk.item_table import F64, I64

SESSION_GAP_US = 30 * 60 * 1_000_000

Attributes = Mapping[str, tuple[UserAttribute, ...]]
"""Attributes by user id."""

_COUNTED = [counter for counter in COUNTERS if counter]

# Users whose ties are turned into objects together, to limit the memory of the lists in between.
_BLOCK_USERS = 4096


def collect_records(
    rows: Iterable[Row], *, age_groups: Mapping[str, str], attributes: Attributes | None = None
) -> list[UserRecord]:
    """
    Return the records of *rows*; see `collect`.

    Raises:
        DataError: *rows* is empty or raises this error.
    """
    return collect(Interactions.of(rows), age_groups=age_groups, attributes=attributes)


def collect(
    interactions: Interactions, *, age_groups: Mapping[str, str], attributes: Attributes | None = None
) -> list[UserRecord]:
    """
    Return one record per user, ordered by user id; each row adds 1 to its counter.

    If rows have times, a pause of more than 30 minutes ends a session, and a session lasts from its first row to its
    last. Users of *age_groups* or *attributes* without rows have an empty history.

    Cost: a few sorts of the rows; about 100 bytes of memory per distinct pair of user and item.
    """
    attributes = attributes or {}
    users, number = len(interactions.user_ids), len(COUNTERS)
    cells = interactions.users.astype(np.int64) * number + interactions.counters
    counts = np.bincount(cells, minlength=users * number).reshape(users, number)
    histories = _Histories.of(interactions)
    sessions, session_us, newest = measure_sessions(interactions)
    places = {user_id: place for place, user_id in enumerate(interactions.user_ids) if counts[place].any()}
    records = {
        user_id: UserRecord(
            user_id,
            age_groups.get(user_id, UNKNOWN_AGE),
            **dict(zip(_COUNTED, counts[place].tolist(), strict=False)),
            sessions=int(sessions[place]),
            session_ms=int(session_us[place]) // 1000,
            as_of_us=int(newest[place]) if sessions[place] else None,
            attributes=attributes.get(user_id, ()),
            history=history,
            avoided=avoided,
        )
        for (user_id, place), (history, avoided) in zip(places.items(), histories.lists(places.values()), strict=True)
    }
    return [
        records.get(user_id) or unseen_record(user_id, age_groups=age_groups, attributes=attributes)
        for user_id in sorted(records.keys() | age_groups.keys() | attributes.keys())
    ]


def unseen_record(user_id: str, *, age_groups: Mapping[str, str], attributes: Attributes) -> UserRecord:
    """Return the record of a user without interactions."""
    return UserRecord(user_id, age_groups.get(user_id, UNKNOWN_AGE), attributes=attributes.get(user_id, ()))


@dataclass(frozen=True)
class _Histories:
    """The ties of all users, newest first, ties by item id; user u owns ends[u] to ends[u + 1], exclusive."""

    item_ids: list[str]
    ends: I64
    items: I64
    weights: F64
    times_us: I64

    @classmethod
    def of(cls, interactions: Interactions) -> "_Histories":
        first, tie = interactions.ties()
        # Sums of multiples of 1 / WEIGHT_STEPS are exact in every order.
        weights = np.bincount(tie, quantise(interactions.weights), first.size).astype(np.float64)
        times_us = np.zeros(first.size, np.int64)
        np.maximum.at(times_us, tie, interactions.times_us)
        users, items = interactions.users[first], interactions.items[first].astype(np.int64)
        by_name = np.empty(len(interactions.item_ids), np.int64)
        by_name[sorted(range(by_name.size), key=interactions.item_ids.__getitem__)] = np.arange(by_name.size)
        order = np.lexsort((by_name[items], -times_us, users))
        ends = np.concatenate(([0], np.cumsum(np.bincount(users, minlength=len(interactions.user_ids)))))
        return cls(interactions.item_ids, ends, items[order], weights[order], times_us[order])

    def lists(self, users: Iterable[int]) -> Iterator[tuple[list[HistoryItem], list[HistoryItem]]]:
        """Yield the history and the avoided items of each of *users*, which rise."""
        block, start = -1, 0
        items: list[HistoryItem] = []
        for user in users:
            if user // _BLOCK_USERS != block:
                block = user // _BLOCK_USERS
                start = int(self.ends[block * _BLOCK_USERS])
                items = self._items(start, int(self.ends[min((block + 1) * _BLOCK_USERS, self.ends.size - 1)]))
            yield split_ties(items[int(self.ends[user]) - start : int(self.ends[user + 1]) - start])

    def _items(self, start: int, end: int) -> list[HistoryItem]:
        ids = map(self.item_ids.__getitem__, self.items[start:end].tolist())
        return list(map(HistoryItem, ids, self.weights[start:end].tolist(), self.times_us[start:end].tolist()))


def quantise(weights: F64) -> F64:
    """Return the multiples of 1 / WEIGHT_STEPS nearest to *weights*, but never 0, because each row counts."""
    steps = np.maximum(1, np.rint(np.abs(weights) * WEIGHT_STEPS))
    return np.asarray(np.copysign(steps, weights) / WEIGHT_STEPS, np.float64)


def measure_sessions(interactions: Interactions) -> tuple[I64, I64, I64]:
    """Return each user's number of sessions, their total length and the newest time, in microseconds; 0 if unknown."""
    timed = interactions.times_us >= 0
    users, times_us = interactions.users[timed], interactions.times_us[timed]
    order = np.lexsort((times_us, users))
    users, times_us = users[order], times_us[order]
    same = users[1:] == users[:-1]
    pauses = np.diff(times_us)
    within = same & (pauses <= SESSION_GAP_US)
    size = len(interactions.user_ids)
    newest = np.zeros(size, np.int64)
    newest[users] = times_us  # the last assignment of a user wins
    sessions = np.bincount(users, minlength=size) - np.bincount(users[1:][within], minlength=size)
    # Float64 adds whole microseconds exactly, up to 285 years.
    session_us = np.bincount(users[1:][within], pauses[within], size).astype(np.int64)
    return sessions, session_us, newest
