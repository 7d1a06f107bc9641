"""
Hold out interactions, to measure whether a model trained on the rest finds them.

    random    the last floor(n / 5) of a user's n items by a random key. The keys of all pairs of user and item are
              `default_rng(seed).permutation(pairs)`, in the order of their first rows in the file
    temporal  the floor(n / 5) items with the newest interactions; equal times in the order of their first rows
    calendar  all rows from a date on, a fifth of all rows
    users     all rows of a fifth of the users

No row of a held-out item stays in the training part, so its counters, sessions and weights contain no trace of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from offline.interactions import Interactions
from offline.reading.lines import DataError
from recsys.records import UserRecord
from topk.item_table import I64

Holdout = Literal["random", "temporal"]

# One item in SHARE is held out.
SHARE = 5

HeldOut = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class SplitRows:
    """The rows to train on, and the held-out items of each user; users without held-out items are absent."""

    training: Interactions
    held_out: HeldOut


def default_holdout(interactions: Interactions) -> Holdout:
    """Return the hold-out that resembles serving most: temporal if every row has a time, else random."""
    return "temporal" if interactions.timed else "random"


def split_rows(interactions: Interactions, *, holdout: Holdout, seed: int = 0) -> SplitRows:
    """
    Split *interactions* into a training part and a fifth of each user's items.

    Raises:
        DataError: *holdout* is temporal and a row has no time.
    """
    if holdout == "temporal" and not interactions.timed:
        row = int(np.argmin(interactions.times_us))
        user_id = interactions.user_ids[interactions.users[row]]
        item_id = interactions.item_ids[interactions.items[row]]
        raise DataError(f"user {user_id}, item {item_id}: a temporal hold-out needs a time in every row")
    first, tie = interactions.ties()
    newest = np.full(first.size, -1, np.int64)
    np.maximum.at(newest, tie, interactions.times_us)
    held = mark_last(interactions.users[first].astype(np.int64), _keys(newest, holdout, seed))
    return SplitRows(interactions.only(~held[tie]), held_out(interactions, first[held]))


def split_by_date(interactions: Interactions) -> tuple[SplitRows, int]:
    """
    Split *interactions*, which all have times, at a date; return the split and the date in microseconds.

    The training part is the rows before the date. A user's items that have a row before it are not held out.
    """
    size = interactions.times_us.size
    place = size - max(size // SHARE, 1)
    date = int(np.partition(interactions.times_us, place)[place])
    first, tie = interactions.ties()
    before = interactions.times_us < date
    known = np.zeros(first.size, np.bool_)
    known[tie[before]] = True
    return SplitRows(interactions.only(before), held_out(interactions, first[~known])), date


def split_off_users(interactions: Interactions, *, seed: int, most: int) -> tuple[Interactions, Interactions]:
    """Return the rows of most users, and the rows of a random fifth of the users, at most *most*."""
    users = len(interactions.user_ids)
    chosen = np.zeros(users, np.bool_)
    chosen[np.random.default_rng(seed).permutation(users)[: min(users // SHARE, most)]] = True
    return interactions.only(~chosen[interactions.users]), interactions.only(chosen[interactions.users])


def held_out(interactions: Interactions, rows: I64) -> HeldOut:
    """Return the items of *rows*, by user."""
    found: dict[str, list[str]] = {}
    for user, item in zip(interactions.users[rows].tolist(), interactions.items[rows].tolist(), strict=True):
        found.setdefault(interactions.user_ids[user], []).append(interactions.item_ids[item])
    return found


def split_records(
    records: Sequence[UserRecord], *, holdout: Holdout, seed: int = 0
) -> tuple[list[UserRecord], HeldOut]:
    """
    Split the records of a store, to choose hyper-parameters.

    Only the histories are cut, because the counters are sums that cannot be split. Histories are ordered, so the first
    of several items with equal times is the newest.
    """
    sizes = np.array([len(record.history) for record in records], np.int64)
    owners = np.repeat(np.arange(sizes.size), sizes)
    newest_last = np.arange(owners.size)[::-1]
    marks = mark_last(owners, _keys(newest_last, holdout, seed))
    training, held_out = [], {}
    for record, own in zip(records, np.split(marks, np.cumsum(sizes)[:-1]), strict=True):
        out = own.nonzero()[0].tolist()
        held_out[record.user_id] = [record.history[place].item_id for place in out]
        kept = [record.history[place] for place in (~own).nonzero()[0].tolist()] if out else record.history
        training.append(msgspec.structs.replace(record, history=kept))
    return training, {user_id: item_ids for user_id, item_ids in held_out.items() if item_ids}


def _keys(times: I64, holdout: Holdout, seed: int) -> I64:
    return np.random.default_rng(seed).permutation(times.size) if holdout == "random" else times


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
    return places(owners, keys) >= (sizes - sizes // SHARE)[owners]


def places(owners: I64, keys: I64) -> I64:
    """Return the place of each entry among those of its owner, from 0, ordered by *keys*, then by position."""
    sizes, order = np.bincount(owners), np.lexsort((keys, owners))
    found = np.empty(owners.size, np.int64)
    found[order] = np.arange(owners.size) - (np.cumsum(sizes) - sizes)[owners[order]]
    return found
