"""
Hold out users from whom a ranker can learn, and train the rest of the model without what is held out.

    ahead       a fifth of each user's items: the newest ones, or random ones if times are missing
    newcomers   all interactions of some users; their first 0, 1, 2 or 5 items are known, and the next items are to be found

A request comes at the time of a held-out visit, and the items of this visit are to be found. The ranker can therefore learn
from the hour of a request and from the age of an item. Without times, all held-out items of a user are to be found.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

import msgspec
import numpy as np

from offline.descriptions import Arrays
from offline.evaluation.holdout import HeldOut, Holdout, split_records
from offline.evaluation.quality import DEPTH, make_task
from offline.matrix import make_ratings
from offline.newcomers import split_off
from offline.popularity import measure_popularity
from offline.reranking import KNOWN, Group
from offline.training import ModelSettings, fit_arrays
from offline.visits import split_visits
from recrank.model import Query
from recrank.ranker import SHORTLIST
from recsys.contracts.wire import MAX_HISTORY
from recsys.declaration.types import Declaration
from recsys.features import compute_features
from recsys.items import Item
from recsys.records import HistoryItem, UserRecord

_SEED = 100
_MOST_USERS, _FEWEST_USERS = 1000, 50


@dataclass(frozen=True)
class _Asked:
    """
    A request of a held-out user.

    Attributes:
        user: Place of the user in its group.
        query: The request.
        held: Item ids to be found.
    """

    user: int
    query: Query
    held: Sequence[str]


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
    training, held_out = split_records(records, holdout=holdout, seed=_SEED)
    task = make_task(training, held_out, most=_MOST_USERS)
    if task.users.size < _FEWEST_USERS:
        return []

    def group(part: Sequence[UserRecord], asked: Sequence[_Asked]) -> Group:
        arrays, catalogue = _train_part(part, settings, declaration, items)
        described = [shown.get(item_id, Item(item_id)) for item_id in catalogue]
        users = np.array([each.user for each in asked], np.int64)
        return Group(arrays, described, [each.query for each in asked], [each.held for each in asked], users)

    groups = [group(training, _ask_ahead([records[row] for row in task.users], held_out, ordered=ordered))]
    rest, strangers = split_off(records, most=_MOST_USERS, ordered=ordered)
    asked = list(_ask_newcomers(strangers, ordered=ordered))
    return [*groups, group(rest, asked)] if asked else groups


def _train_part(
    records: Sequence[UserRecord], settings: ModelSettings, declaration: Declaration, items: Mapping[str, Item]
) -> tuple[Arrays, Sequence[str]]:
    """Return the arrays of a training on *records*, and its catalogue."""
    ratings = make_ratings(records)
    arrays = fit_arrays(records, ratings, settings, items=items)
    return {**arrays, **measure_popularity(records, ratings.item_ids, declaration)}, ratings.item_ids


def _ask_ahead(records: Sequence[UserRecord], held_out: HeldOut, *, ordered: bool) -> list[_Asked]:
    """
    Return the requests for the items *held_out*, at most `_MOST_USERS`.

    The first visit of each user comes first, then the second of each user, and so on. Earlier visits are known.
    """
    asked: list[tuple[int, _Asked]] = []
    for user, record in enumerate(records):
        wanted = {*held_out[record.user_id]}
        known = [item for item in record.history if item.item_id not in wanted]
        later = [item for item in record.history if item.item_id in wanted]
        for number, visit in enumerate(split_visits(later) if ordered else [later]):
            asked.append((number, _Asked(user, _query(record, visit, known, ordered=ordered), _ids(visit))))
            known = [*visit, *known]
    return [each for _, each in sorted(asked, key=itemgetter(0))[:_MOST_USERS]]


def _ask_newcomers(strangers: Sequence[UserRecord], *, ordered: bool) -> Iterator[_Asked]:
    """Yield a request of each stranger for the next items, for each number of known items."""
    for known in KNOWN:
        for place, record in enumerate(strangers):
            first = len(record.history) - known
            if first > 0:
                new = msgspec.structs.replace(record, views=0, clicks=0, purchases=0, sessions=0, session_ms=0)
                later = record.history[max(0, first - DEPTH) : first]
                visit = next(split_visits(later)) if ordered else later
                yield _Asked(place, _query(new, visit, record.history[first:], ordered=ordered), _ids(visit))


def _query(record: UserRecord, visit: Sequence[HistoryItem], known: Sequence[HistoryItem], *, ordered: bool) -> Query:
    """Return the request of a user for a shortlist at the beginning of a *visit*, after the *known* items."""
    newest_us = max((item.time_us for item in known), default=None)
    after_us = min(item.time_us for item in visit) if newest_us is None else newest_us
    return Query(
        compute_features(record),
        _ids(known[:MAX_HISTORY]),
        SHORTLIST,
        as_of_us=newest_us,
        at_us=visit[-1].time_us if ordered else after_us,
        user_attributes=record.user_attributes,
    )


def _ids(items: Sequence[HistoryItem]) -> list[str]:
    return [item.item_id for item in items]
