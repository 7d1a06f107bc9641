"""
The studies of an evaluation: each has a training part, and panels of users whose next items are to be found.

    per user    a fifth of each user's items is held out
    calendar    everything from a date on is held out, for users known before it and for new ones
    unseen      a fifth of the users is held out; panels know their first 0, 1, 2, 5 or 10 items, or all but the newest
                fifth, and the next 20 items are to be found

If the declaration has features and every row has a time, each user of the first and the last study asks at the beginning
of the next visit, and the items of this visit are to be found. Features may read the time of a request.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import msgspec
import numpy as np

from offline.collection import Attributes, collect, unseen_record
from offline.evaluation.holdout import (
    SHARE,
    HeldOut,
    Holdout,
    SplitRows,
    held_out,
    places,
    split_by_date,
    split_off_users,
    split_rows,
)
from offline.evaluation.quality import DEPTH, Panel, make_task
from offline.interactions import Interactions
from offline.matrix import Ratings, make_ratings
from offline.reading.lines import DataError
from offline.visits import split_visits
from recrank.artefact import Item
from recsys.declaration.types import Declaration
from recsys.records import HistoryItem, UserRecord

LENGTHS = (0, 1, 2, 5, 10)


@dataclass(frozen=True)
class Data:
    """
    The data of an evaluation, and how much of it to measure.

    Attributes:
        interactions: All rows.
        items: Known titles and attributes by item id.
        age_groups: Known age groups by user id.
        attributes: Known attributes by user id.
        most_users: Largest number of users to recommend to; more are sampled.
        seed: Seed of random choices.
        declaration: Tells the features of the ranker; None for none.
        shown: The items with all of their attributes, which features may read.
    """

    interactions: Interactions
    items: Mapping[str, Item] = field(default_factory=dict)
    age_groups: Mapping[str, str] = field(default_factory=dict)
    attributes: Attributes = field(default_factory=dict)
    most_users: int = 25_000
    seed: int = 0
    declaration: Declaration | None = None
    shown: Mapping[str, Item] = field(default_factory=dict)

    @cached_property
    def _newest_us(self) -> Mapping[tuple[str, str], int]:
        """Time of each user's newest interaction with each item; empty if no feature may read it."""
        rows = self.interactions
        if not (rows.timed and self.declaration and self.declaration.features):
            return {}
        first, tie = rows.ties()
        newest = np.zeros(first.size, np.int64)
        np.maximum.at(newest, tie, rows.times_us)
        places = zip(rows.users[first].tolist(), rows.items[first].tolist(), newest.tolist(), strict=True)
        return {(rows.user_ids[user], rows.item_ids[item]): time_us for user, item, time_us in places}

    def next_visits(self, held: HeldOut) -> tuple[HeldOut, Mapping[str, int]]:
        """Return the items of *held* that are to be found, and the times of the requests for them, by user."""
        if not self._newest_us:
            return held, {}
        found, times_us = {}, {}
        for user_id, item_ids in held.items():
            items = [HistoryItem(item_id, 0.0, self._newest_us[user_id, item_id]) for item_id in item_ids]
            visit = next(split_visits(sorted(items, key=lambda item: -item.time_us)))
            found[user_id] = [item.item_id for item in visit]
            times_us[user_id] = visit[-1].time_us
        return found, times_us

    def unseen_record(self, user_id: str) -> UserRecord:
        """Return the record of a user without interactions."""
        return unseen_record(user_id, age_groups=self.age_groups, attributes=self.attributes)


@dataclass(frozen=True)
class Study:
    """
    A training part and panels.

    Attributes:
        name: Name of the study.
        records: The training part.
        ratings: Its matrix.
        items: Known titles and attributes by item id.
        ahead: Whether the held-out items are later than the training part, not random ones.
        panels: Panels by name.
        date_us: Date of the split, in microseconds; None for other studies.
        declaration: As of `Data`.
        shown: As of `Data`.
    """

    name: str
    records: Sequence[UserRecord]
    ratings: Ratings
    items: Mapping[str, Item]
    ahead: bool
    panels: Mapping[str, Panel]
    date_us: int | None = None
    declaration: Declaration | None = None
    shown: Mapping[str, Item] = field(default_factory=dict)

    @cached_property
    def ordered(self) -> bool:
        """Whether histories are in the order of time."""
        return self.ahead and all(item.time_us for record in self.records for item in record.history)


PER_USER, CALENDAR, NEW_ITEMS, NEW_USERS = "per user", "calendar", "new items", "0, after the date"


def study_per_user(data: Data, *, holdout: Holdout, seed: int) -> Study:
    """
    Return the study that holds out a fifth of each user's items.

    Raises:
        DataError: no user has five items, or *holdout* is temporal and a row has no time.
    """
    split = split_rows(data.interactions, holdout=holdout, seed=seed)
    asked, times_us = data.next_visits(split.held_out) if holdout == "temporal" else (split.held_out, {})
    study = _study(data, SplitRows(split.training, asked), PER_USER, ahead=holdout == "temporal")
    study = replace(study, panels={name: replace(each, times_us=times_us) for name, each in study.panels.items()})
    if not study.panels:
        raise DataError("no user has five items or more, so nothing can be held out; use more data")
    return study


def study_by_date(data: Data) -> Study:
    """Return the study that holds out the newest fifth of all rows; all rows must have times."""
    split, date_us = split_by_date(data.interactions)
    known = {data.interactions.user_ids[user] for user in np.unique(split.training.users).tolist()}
    groups = {user_id: group for user_id, group in data.age_groups.items() if user_id in known}
    attributes = {user_id: found for user_id, found in data.attributes.items() if user_id in known}
    study = _study(replace(data, age_groups=groups, attributes=attributes), split, CALENDAR, ahead=True)
    new = {user_id: item_ids for user_id, item_ids in split.held_out.items() if user_id not in known}
    asked = [data.unseen_record(user_id) for user_id in new][: data.most_users]
    panel = Panel.of(study.ratings, asked, [new[record.user_id] for record in asked])
    panels = {**study.panels, **({NEW_USERS: panel} if asked else {})}
    at_date = {
        name: replace(each, times_us=dict.fromkeys((record.user_id for record in each.records), date_us))
        for name, each in panels.items()
    }
    return replace(study, panels=at_date, date_us=date_us)


def _study(data: Data, split: SplitRows, name: str, *, ahead: bool) -> Study:
    records = collect(split.training, age_groups=data.age_groups, attributes=data.attributes)
    task = make_task(records, split.held_out, most=data.most_users)
    panels = {name: task.panel, NEW_ITEMS: task.panel.new_items()}
    kept = {title: panel for title, panel in panels.items() if panel.records}
    return Study(name, records, task.ratings, data.items, ahead, kept, declaration=data.declaration, shown=data.shown)


def study_unseen(data: Data, *, ahead: bool) -> Study:
    """Return the study of users that training never saw, by the number of their known items."""
    training, strangers = split_off_users(data.interactions, seed=data.seed, most=data.most_users // SHARE)
    records = collect(training, age_groups={})
    ratings = make_ratings(records)
    ordered = ahead and strangers.timed
    panels = {
        name: replace(Panel.of(ratings, *_known_part(SplitRows(split.training, asked), data)), times_us=times_us)
        for name, split in _first_items(strangers, ordered=ordered, seed=data.seed)
        if split.held_out
        for asked, times_us in [data.next_visits(split.held_out) if ordered else (split.held_out, {})]
    }
    return Study(
        "unseen users", records, ratings, data.items, ahead, panels, declaration=data.declaration, shown=data.shown
    )


def _known_part(split: SplitRows, data: Data) -> tuple[list[UserRecord], list[Sequence[str]]]:
    """Return the users with held-out items, as the store knows them after the rows of the training part."""
    known = {record.user_id: record for record in collect(split.training, age_groups={})}
    records = []
    for user_id in split.held_out:
        told = data.unseen_record(user_id)
        record = known.get(user_id) or told
        records.append(msgspec.structs.replace(record, age_group=told.age_group, attributes=told.attributes))
    return records, list(split.held_out.values())


def _first_items(interactions: Interactions, *, ordered: bool, seed: int) -> Iterator[tuple[str, SplitRows]]:
    """Yield the name of each panel, the rows of the users' first items, and the items that follow."""
    first, tie = interactions.ties()
    owners = interactions.users[first].astype(np.int64)
    keys = np.random.default_rng(seed).permutation(first.size)
    if ordered:
        keys = np.zeros(first.size, np.int64)
        np.maximum.at(keys, tie, interactions.times_us)
    sizes = np.bincount(owners, minlength=len(interactions.user_ids))
    place = places(owners, keys)
    known = {str(length): np.full(sizes.size, length) for length in LENGTHS}
    most = sizes - np.maximum(sizes // SHARE, 1)
    known["more"] = np.where(most > LENGTHS[-1], most, sizes)
    for name, lengths in known.items():
        limits = lengths[owners]
        able = (sizes > lengths)[owners]
        before = able & (place < limits)
        after = able & (place >= limits) & (place < limits + DEPTH)
        yield name, SplitRows(interactions.only(before[tie]), held_out(interactions, first[after]))
