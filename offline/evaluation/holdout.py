"""
Hold out a fifth of each user's items, to measure whether a model trained on the rest finds them.

    random    the last floor(n / 5) of a user's n items by a random key. The keys of all pairs of user and item are
              `default_rng(seed).permutation(pairs)`, in the order of their first rows in the file
    temporal  the floor(n / 5) items with the newest interactions; equal times in the order of their first rows

No row of a held-out item stays in the training part, so its counters, sessions and weights contain no trace of it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from offline.reading.lines import DataError, Row
from recsys.ranking.item_table import I64
from recsys.records import UserRecord

Holdout = Literal["random", "temporal"]
HOLDOUTS: tuple[Holdout, ...] = ("random", "temporal")

# One item in SHARE is held out.
SHARE = 5

HeldOut = dict[str, list[str]]


@dataclass(frozen=True)
class SplitRows:
    """The rows to train on, and the held-out items of each user; users without held-out items are absent."""

    training: list[Row]
    held_out: HeldOut


def default_holdout(rows: Iterable[Row]) -> Holdout:
    """Return the hold-out that resembles serving most: temporal if every row has a time, else random."""
    return "temporal" if all(row.time_us is not None for row in rows) else "random"


def split_rows(rows: Sequence[Row], *, holdout: Holdout, seed: int = 0) -> SplitRows:
    """
    Split *rows* into a training part and held-out items.

    Raises:
        DataError: *holdout* is temporal and a row has no time.
    """
    newest: dict[tuple[str, str], int] = {}
    for row in rows:
        if holdout == "temporal" and row.time_us is None:
            raise DataError(f"user {row.user_id}, item {row.item_id}: a temporal hold-out wants a time in every row")
        tie = row.user_id, row.item_id
        newest[tie] = max(newest.get(tie, 0), row.time_us or 0)
    held = dict(zip(newest, _choose(list(newest), list(newest.values()), holdout, seed).tolist(), strict=True))
    held_out: HeldOut = {}
    for (user_id, item_id), out in held.items():
        if out:
            held_out.setdefault(user_id, []).append(item_id)
    return SplitRows([row for row in rows if not held[row.user_id, row.item_id]], held_out)


def split_records(
    records: Sequence[UserRecord], *, holdout: Holdout, seed: int = 0
) -> tuple[list[UserRecord], HeldOut]:
    """
    Split the records of a store, to choose hyper-parameters.

    Only the histories are cut, because the counters are sums that cannot be split. Histories are ordered, so the first
    of several items with equal times is the newest.
    """
    ties = [(record.user_id, item.item_id) for record in records for item in record.history]
    places = [-place for record in records for place in range(len(record.history))]
    chosen = iter(_choose(ties, places, holdout, seed).tolist())
    training, held_out = [], {}
    for record in records:
        marks = [(item, next(chosen)) for item in record.history]
        training.append(msgspec.structs.replace(record, history=[item for item, out in marks if not out]))
        if out := [item.item_id for item, out in marks if out]:
            held_out[record.user_id] = out
    return training, held_out


def _choose(ties: Sequence[tuple[str, str]], times: Sequence[int], holdout: Holdout, seed: int) -> NDArray[np.bool_]:
    users: dict[str, int] = {}
    owners = np.fromiter((users.setdefault(user_id, len(users)) for user_id, _ in ties), np.int64, len(ties))
    if holdout == "random":
        return mark_last(owners, np.random.default_rng(seed).permutation(len(ties)))
    return mark_last(owners, np.array(times, np.int64))


def mark_last(owners: I64, keys: I64) -> NDArray[np.bool_]:
    """
    Mark the last floor(n / SHARE) of each owner's n entries, ordered by *keys*, then by position.

    Args:
        owners: (N,) int64, 0 <= owner.
        keys: (N,) int64.

    Returns:
        (N,) bool.
    """
    sizes = np.bincount(owners)
    order = np.lexsort((keys, owners))
    place = np.empty(owners.size, np.int64)
    place[order] = np.arange(owners.size) - (np.cumsum(sizes) - sizes)[owners[order]]
    return place >= (sizes - sizes // SHARE)[owners]
