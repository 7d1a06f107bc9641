"""Collect the rows of a file into one record per user, as a feature store holds it."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from offline.reading.lines import DataError, Row
from recsys.features import UNKNOWN_AGE
from recsys.records import HistoryItem, UserRecord

SESSION_GAP_US = 30 * 60 * 1_000_000

# Weights are multiples of 1 / WEIGHT_STEPS. Binary floating point (SQLite's REAL, Redis's HINCRBYFLOAT) then adds them
# exactly, here and when a store adds the weights of later events. The order of the additions changes no bit.
WEIGHT_STEPS = 1024


@dataclass
class _Gathered:
    ties: dict[str, tuple[float, int]] = field(default_factory=dict)
    times: list[int] = field(default_factory=list)
    rows: int = 0

    def add(self, row: Row) -> None:
        weight, newest = self.ties.get(row.item_id, (0.0, 0))
        self.ties[row.item_id] = (weight + quantise(row.weight), max(newest, row.time_us or 0))
        self.rows += 1
        if row.time_us is not None:
            self.times.append(row.time_us)


def collect_records(rows: Iterable[Row], *, age_groups: Mapping[str, str]) -> list[UserRecord]:
    """
    Return one record per user, ordered by user id; each row counts as a view.

    If rows have times, a pause of more than 30 minutes ends a session, and a session lasts from its first row to its
    last. Users of *age_groups* without rows have an empty history.

    Raises:
        DataError: *rows* is empty or raises this error.

    Cost: about 100 bytes of memory per distinct pair of user and item.
    """
    gathered: defaultdict[str, _Gathered] = defaultdict(_Gathered)
    for row in rows:
        gathered[row.user_id].add(row)
    if not gathered:
        raise DataError("the file holds no interactions")
    return [
        _record(user_id, gathered[user_id], age_groups.get(user_id, UNKNOWN_AGE))
        for user_id in sorted(gathered.keys() | age_groups.keys())
    ]


def _record(user_id: str, user: _Gathered, age_group: str) -> UserRecord:
    sessions, session_us = measure_sessions(user.times)
    history = [HistoryItem(item_id, weight, time_us) for item_id, (weight, time_us) in user.ties.items()]
    return UserRecord(
        user_id,
        age_group,
        views=user.rows,
        sessions=sessions,
        session_ms=session_us // 1000,
        as_of_us=max(user.times, default=None),
        history=sorted(history, key=lambda item: (-item.time_us, item.item_id)),
    )


def quantise(weight: float) -> float:
    """Return the multiple of 1 / WEIGHT_STEPS nearest to *weight*, but never 0, because weights are above 0."""
    return max(1, round(weight * WEIGHT_STEPS)) / WEIGHT_STEPS


def measure_sessions(times_us: Iterable[int]) -> tuple[int, int]:
    """Return the number of sessions in *times_us* and their total length in microseconds."""
    ordered = sorted(times_us)
    pauses = [after - before for before, after in pairwise(ordered)]
    sessions = sum(pause > SESSION_GAP_US for pause in pauses) + bool(ordered)
    return sessions, sum(pause for pause in pauses if pause <= SESSION_GAP_US)
