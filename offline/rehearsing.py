"""
Hold out users from whom a ranker can learn, and train the rest of the model without what is held out.

    ahead       a fifth of each user's items: the newest ones, or random ones if times are missing
    newcomers   all interactions of some users; their first 0, 1, 2 or 5 items are known, and the next 20 are to be found
"""

from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np

from offline.boosting import FOLDS
from offline.describing import Arrays
from offline.evaluation.holdout import Holdout, split_records
from offline.evaluation.quality import DEPTH, make_task
from offline.matrix import make_ratings
from offline.popularity import measure_popularity
from offline.reranking import KNOWN, Group
from offline.training import ModelSettings, fit_arrays
from recsys.contracts.wire import MAX_HISTORY, Features
from recsys.declaration.types import Declaration
from recsys.features import UNKNOWN_FEATURES, compute_features
from recsys.items import Item
from recsys.ranking.model import Query
from recsys.ranking.ranker import SHORTLIST
from recsys.records import HistoryItem, UserRecord

_SEED = 100
_MOST_USERS, _FEWEST_USERS = 1000, 50
_SHARE = 0.2


def rehearse(
    records: Sequence[UserRecord],
    settings: ModelSettings,
    declaration: Declaration,
    *,
    items: Mapping[str, Item],
    shown: Mapping[str, Item],
    ahead: bool,
) -> list[Group]:
    """
    Return the users of the hold-out ahead, then the newcomers; no group if there are too few users.

    Args:
        records: The training data.
        settings: Settings with a blend.
        declaration: The declaration of the features.
        items: The attributes that training learns from, by item id.
        shown: The items with all of their attributes.
        ahead: Whether to hold out the newest items, not random ones.

    Cost: two trainings on parts of the data.
    """
    ordered = ahead and all(item.time_us for record in records for item in record.history)
    holdout: Holdout = "temporal" if ordered else "random"
    task = make_task(*split_records(records, holdout=holdout, seed=_SEED), most=_MOST_USERS)
    if task.users.size < _FEWEST_USERS:
        return []

    def group(
        training: Sequence[UserRecord], asked: Sequence[tuple[Query, Sequence[str]]], users: Sequence[int]
    ) -> Group:
        arrays, catalogue = _train_part(training, settings, declaration, items)
        described = [shown.get(item_id, Item(item_id)) for item_id in catalogue]
        folds = np.array(users, np.int64) % FOLDS
        return Group(arrays, described, [query for query, _ in asked], [held for _, held in asked], folds)

    names = {column: item_id for item_id, column in task.columns.items()}
    ends = task.held.indptr.tolist()
    asked = [
        (
            _query(record := task.records[row], record.history[:MAX_HISTORY], compute_features(record)),
            [names[column] for column in task.held.indices[start:end].tolist()],
        )
        for row, start, end in zip(task.users.tolist(), ends, ends[1:], strict=False)
    ]
    groups = [group(task.records, asked, range(len(asked)))]
    training, strangers = _split_off(records, ordered=ordered)
    late = list(_ask_newcomers(strangers))
    if late:
        groups.append(group(training, [(query, held) for _, query, held in late], [user for user, _, _ in late]))
    return groups


def _train_part(
    records: Sequence[UserRecord], settings: ModelSettings, declaration: Declaration, items: Mapping[str, Item]
) -> tuple[Arrays, Sequence[str]]:
    """Return the arrays of a training on *records*, and its catalogue."""
    ratings = make_ratings(records)
    arrays = fit_arrays(records, ratings, settings, items=items)
    return {**arrays, **measure_popularity(records, ratings.item_ids, declaration)}, ratings.item_ids


def _split_off(records: Sequence[UserRecord], *, ordered: bool) -> tuple[list[UserRecord], list[UserRecord]]:
    """Return most users, and a random fifth of those with two items, at most `_MOST_USERS`."""
    rng = np.random.default_rng(_SEED)
    able = [row for row, record in enumerate(records) if len(record.history) > 1]
    out = set(rng.permutation(able)[: min(_MOST_USERS, int(len(able) * _SHARE))].tolist())
    strangers = [_arranged(records[row], rng, ordered=ordered) for row in sorted(out)]
    return [record for row, record in enumerate(records) if row not in out], strangers


def _ask_newcomers(strangers: Sequence[UserRecord]) -> Iterator[tuple[int, Query, Sequence[str]]]:
    """Yield the place, the query and the next items of each stranger, for each number of known items."""
    for known in KNOWN:
        for place, record in enumerate(strangers):
            first = len(record.history) - known
            if first > 0:
                features = msgspec.structs.replace(UNKNOWN_FEATURES, age_group=record.age_group)
                held = [item.item_id for item in record.history[max(0, first - DEPTH) : first]]
                yield place, _query(record, record.history[first:], features), held


def _query(record: UserRecord, known: Sequence[HistoryItem], features: Features) -> Query:
    """Return the request of a user for a shortlist, right after the newest of the *known* items."""
    at_us = max((item.time_us for item in known), default=min((item.time_us for item in record.history), default=0))
    return Query(
        features,
        [item.item_id for item in known],
        SHORTLIST,
        as_of_us=at_us if known else None,
        at_us=at_us,
        user_attributes=record.user_attributes,
    )


def _arranged(record: UserRecord, rng: np.random.Generator, *, ordered: bool) -> UserRecord:
    """Return *record*; if it is not *ordered* by time, its history gets a random order."""
    if ordered:
        return record
    places = rng.permutation(len(record.history))
    return msgspec.structs.replace(record, history=[record.history[place] for place in places])
