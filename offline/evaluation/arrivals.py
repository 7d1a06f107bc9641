"""
Measure new items: hide a tenth of the items from training, give their attributes, and ask for them.

The contenders, in the order of time:

    without new items     neither training nor the catalogue knows the hidden items
    placed                the catalogue has them, and the model places them by their attributes
    five interactions     the same model, after five interactions of each hidden item; histories of requests show them
    refreshed             this model, refreshed with these interactions (`train --refresh`)
    retrained             a model that was chosen and trained with these interactions

Each contender ranks for the same users. Their held-out items are those of the hold-out per user. The contenders that
saw no interaction with a hidden item also rank for all users who have one at any time, early or late.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from offline.choice import choose
from offline.collection import collect
from offline.evaluation.comparison import StudyOutcome, join_splits
from offline.evaluation.contenders import list_answers, load_model, rank_by_model
from offline.evaluation.holdout import HeldOut, Holdout, held_out, places, split_rows
from offline.evaluation.quality import Panel, Quality, measure
from offline.evaluation.report import Report, Section
from offline.evaluation.studies import Data
from offline.interactions import Interactions
from offline.matrix import make_ratings
from offline.reading.lines import DataError
from offline.refresh import refresh
from offline.training import train
from recrank.artefact import Item, read_artefact
from recrank.model import RankingModel
from recsys.records import UserRecord

SHARE, INTERACTIONS = 0.1, 5
WITHOUT, PLACED, LATER, REFRESHED, RETRAINED = (
    "without new items",
    "placed",
    "five interactions",
    "refreshed",
    "retrained",
)
KNOWN, AMONG_ALL, AMONG_NEW = "known items", "new items among all items", "new items among new items"
AT_ANY_TIME = "at any time, new items among new items"


@dataclass(frozen=True)
class Arrivals:
    """
    The data of two moments, and what to find.

    Attributes:
        hidden: Ids of the hidden items.
        before: The training part without the hidden items.
        after: The same with the first interactions of each hidden item.
        held: Held-out items of the users that *before* contains.
        met: All hidden items of these users, held out or not.
    """

    hidden: frozenset[str]
    before: Sequence[UserRecord]
    after: Sequence[UserRecord]
    held: HeldOut
    met: HeldOut

    @classmethod
    def of(cls, data: Data, *, holdout: Holdout) -> "Arrivals":
        """
        Hide a random tenth of the items that have attributes.

        Raises:
            DataError: no item with interactions has attributes, or no held-out item is hidden.
        """
        split = split_rows(data.interactions, holdout=holdout, seed=data.seed)
        described = [
            item_id
            for item_id in data.interactions.item_ids
            if item_id in data.items and data.items[item_id].attributes
        ]
        order = np.random.default_rng(data.seed).permutation(len(described))
        hidden = frozenset(described[place] for place in order[: int(SHARE * len(described))].tolist())
        if not hidden.intersection(item_id for held in split.held_out.values() for item_id in held):
            raise DataError(
                "no held-out item is hidden; give --items with attributes, and at least a few hundred items"
            )
        first = _first_rows(split.training, hidden)
        is_hidden = _is_hidden(split.training, hidden)
        before = collect(split.training.only(~is_hidden), age_groups=data.age_groups)
        known = {record.user_id for record in before}
        met = held_out(data.interactions, np.flatnonzero(_is_hidden(data.interactions, hidden)))

        def sample(wanted: HeldOut) -> HeldOut:
            users = sorted(known.intersection(wanted))
            chosen = np.random.default_rng(data.seed).permutation(users)[: data.most_users].tolist()
            return {user_id: wanted[user_id] for user_id in chosen}

        return cls(
            hidden,
            before,
            collect(split.training.only(~is_hidden | first), age_groups=data.age_groups),
            sample(split.held_out),
            sample(met),
        )

    def panel(self, records: Sequence[UserRecord], *, hidden: bool) -> Panel:
        """Return the users as *records* know them, with held-out items that are *hidden* or not."""
        wanted = {
            user_id: [item_id for item_id in item_ids if (item_id in self.hidden) == hidden]
            for user_id, item_ids in self.held.items()
        }
        return _panel(records, wanted)

    def panel_at_any_time(self) -> Panel:
        """Return the users as *before* knows them, with the hidden items that they met at any time."""
        return _panel(self.before, self.met)


def evaluate_arrivals(data: Data, *, holdout: Holdout, facts: Mapping[str, Any]) -> Report:
    """Return the report of all contenders; *facts* are further facts of the data."""
    arrivals = Arrivals.of(data, holdout=holdout)
    with tempfile.TemporaryDirectory() as folder:
        outcomes = list(_compare(arrivals, data.items, Path(folder), ahead=holdout == "temporal"))
    found = {outcome.name: outcome.qualities for outcome in outcomes}
    said = {
        **facts,
        "hidden_items": len(arrivals.hidden),
        "users": found[PLACED][KNOWN].ndcg.size,
        "users_with_new_items": found[PLACED][AMONG_NEW].ndcg.size,
        "recall_20_among_new_items": _mean(found[PLACED][AMONG_NEW]),
        "recall_20_among_new_items_at_any_time": _mean(found[PLACED][AT_ANY_TIME]),
        "share_of_retrained": _share(found[LATER][AMONG_NEW], found[RETRAINED][AMONG_NEW]),
        "share_of_known_items_kept": _share(found[PLACED][KNOWN], found[WITHOUT][KNOWN]),
    }
    sections = [
        Section(name, found[PLACED][name].ndcg.size, join_splits([outcomes], name))
        for name in (AMONG_ALL, AMONG_NEW, AT_ANY_TIME)
    ]
    return Report(said, PLACED, join_splits([outcomes], KNOWN), lengths=sections, title="New items")


def _panel(records: Sequence[UserRecord], wanted: HeldOut) -> Panel:
    by_id = {record.user_id: record for record in records}
    asked = [user_id for user_id in wanted if wanted[user_id]]
    return Panel.of(make_ratings(records), [by_id[each] for each in asked], [wanted[each] for each in asked])


def _mean(quality: Quality) -> float:
    return round(float(quality.recall.mean()), 4)


def _share(quality: Quality, whole: Quality) -> float:
    return round(float(quality.recall.mean() / max(whole.recall.mean(), 1e-9)), 4)


def _compare(arrivals: Arrivals, items: Mapping[str, Item], folder: Path, *, ahead: bool) -> Iterator[StudyOutcome]:
    known = {item_id: item for item_id, item in items.items() if item_id not in arrivals.hidden}
    chosen = choose(arrivals.before, items=items, ahead=ahead).settings
    plain = choose(arrivals.before, items=known, ahead=ahead).settings
    for name, settings, described in ((WITHOUT, plain, known), (PLACED, chosen, items)):
        train(arrivals.before, items=described, folder=folder / name, dataset="", settings=settings)
        yield _ask(
            name, load_model(folder / name), arrivals, arrivals.before, {AT_ANY_TIME: arrivals.panel_at_any_time()}
        )
    yield _ask(LATER, load_model(folder / PLACED), arrivals, arrivals.after)
    refresh(
        arrivals.after, read_artefact(folder / PLACED), items=items, folder=folder / REFRESHED, dataset="", facts={}
    )
    settings = choose(arrivals.after, items=items, ahead=ahead).settings
    train(arrivals.after, items=items, folder=folder / RETRAINED, dataset="", settings=settings)
    for name in (REFRESHED, RETRAINED):
        yield _ask(name, load_model(folder / name), arrivals, arrivals.after)


def _ask(
    name: str,
    model: RankingModel,
    arrivals: Arrivals,
    records: Sequence[UserRecord],
    further: Mapping[str, Panel] = MappingProxyType({}),
) -> StudyOutcome:
    """Return the quality of *model* for users as *records* know them; *further* panels get lists of new items."""
    panels = {KNOWN: arrivals.panel(records, hidden=False), AMONG_ALL: arrivals.panel(records, hidden=True)}
    qualities = {where: _measure(model, panel) for where, panel in panels.items()}
    model.make_unavailable([item_id for item_id in model.item_ids if item_id not in arrivals.hidden])
    among_new = {AMONG_NEW: panels[AMONG_ALL], **further}
    return StudyOutcome(name, {**qualities, **{where: _measure(model, panel) for where, panel in among_new.items()}})


def _measure(model: RankingModel, panel: Panel) -> Quality:
    return measure(list_answers(rank_by_model(model, panel), panel), panel)


def _is_hidden(rows: Interactions, hidden: frozenset[str]) -> Any:
    return np.array([item_id in hidden for item_id in rows.item_ids])[rows.items]


def _first_rows(rows: Interactions, hidden: frozenset[str]) -> Any:
    """Return which of *rows* are among the first INTERACTIONS of a hidden item; equal times in the order of the rows."""
    return _is_hidden(rows, hidden) & (places(rows.items.astype(np.int64), rows.times_us) < INTERACTIONS)
