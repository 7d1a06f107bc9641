"""The weights for users without a history, who arrive after the training."""

import numpy as np

from offline.arrival_weights import Arriving
from offline.dates import Dated, split_at_dates
from offline.folds import FittedSources
from offline.lengths import accept
from offline.matrix import make_ratings
from offline.pools import Sources, complete, learn
from offline.source_weights import scaled
from offline.training import suggest
from recrank.mixture import FACTORS, FIXED_SOURCES, POPULARITY, RECENT_POPULARITY
from recsys.records import HistoryItem, UserRecord

DAY_US = 86_400_000_000
START_US = 1_000 * DAY_US
USERS, ITEMS, SEASON, LENGTH = 150, 120, 30, 8


def records(*, fashion: bool) -> list[UserRecord]:
    """Return users who arrive one a day; with a *fashion*, they choose among items that change from day to day."""
    rng = np.random.default_rng(1)
    found = []
    for day in range(USERS):
        first = day * (ITEMS - SEASON) // USERS
        items = first + rng.permutation(SEASON) if fashion else rng.permutation(ITEMS)
        times = [START_US + day * DAY_US + place for place in range(LENGTH)]
        history = [HistoryItem(f"i{item}", 1.0, time_us) for item, time_us in zip(items.tolist(), times, strict=False)]
        found.append(UserRecord(f"u{day:03}", "unknown", history=history[::-1]))
    return found


def test_users_who_come_after_a_date_are_new_and_the_others_are_not():
    """The newest fifth of the interactions comes from new users, and the training part has none of their items."""
    first, second = split_at_dates(records(fashion=True))
    assert [user.user_id for user in first.arrived] == [f"u{day:03}" for day in range(120, 150)]
    assert [user.user_id for user in second.arrived] == [f"u{day:03}" for day in range(96, 120)]
    assert len(second.before) == 96
    assert not first.returned


def test_users_without_interactions_never_arrive():
    """A user of whom attributes alone are known has nothing to be found, and would make every mean undefined."""
    known = [UserRecord(f"v{number}", "25-34") for number in range(3)]
    for date in split_at_dates([*known, *records(fashion=True), *known]):
        assert date.arrived
        assert all(user.history for user in date.arrived)
        assert all(user.history for user in date.before)


def test_few_arrivals_judge_nothing_and_many_need_one_date():
    """Fewer than 50 users are too few; the second date counts only beside a first one with fewer than 300."""
    users = records(fashion=True)

    def groups(*sizes: int) -> list[int]:
        dates = [Dated(users, {}, (users * 10)[:size]) for size in sizes]
        return [len(group) for group in Arriving.of(dates, most=1000).groups]

    assert groups(49, 100) == []
    assert groups(100, 49) == [100]
    assert groups(100, 100) == [100, 100]
    assert groups(300, 100) == [300]
    assert groups(1400) == [1000]


def test_new_users_get_recent_popularity_if_taste_changes():
    """Users who arrive choose among new items, and the weights that they teach find these items."""
    dates = [each for each in split_at_dates(records(fashion=True)) if each.arrived]
    arriving = Arriving([date.arrived for date in dates])
    sources = Sources((), 0.05)
    fits = [FittedSources.to(date.before, suggest(make_ratings(date.before)), {}, ordered=True) for date in dates]
    pools = arriving.pools(fits, sources)
    weights = complete(scaled(learn(pools, np.zeros(len(sources)), range(FIXED_SOURCES))))
    chosen, trials = accept(pools, weights, what="0 items", alone=(FACTORS, POPULARITY))
    assert chosen[RECENT_POPULARITY] == 1
    assert trials[-1].recall_20 > 1.1 * max(trials[0].recall_20, trials[1].recall_20)
