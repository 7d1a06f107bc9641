"""The weights for users who return after they were away."""

import numpy as np
import pytest

from offline.choice import choose
from offline.dates import split_at_dates
from offline.matrix import make_ratings
from offline.recency import Timeline
from offline.return_weights import RECENT, Returning
from recrank.mixture import RECENT_POPULARITY
from recsys.records import HistoryItem, UserRecord

DAY_US = 86_400_000_000
START_US = 1_000 * DAY_US
RETURNING, LEADING = 108, 12


def records(*, away_days: int, fashion: bool) -> list[UserRecord]:
    """
    Return users who had ten items before a pause and four after it, a fifth of all, and a few with 54 items before it.

    Args:
        away_days: Length of the pause.
        fashion: After the pause, users choose among the six items that the few users had last; otherwise among all.
    """
    rng = np.random.default_rng(1)
    found = []
    for user in range(RETURNING + LEADING):
        leads = user >= RETURNING
        items = rng.permutation(120)[: 54 if leads else 14].tolist()
        if fashion:
            items[-6 if leads else -4 :] = (120 + rng.permutation(6)[: 6 if leads else 4]).tolist()
        pauses_us = [0] * (54 if leads else 10) + [away_days * DAY_US] * 4
        times = [START_US + pauses_us[place] + place for place in range(len(items))]
        history = [HistoryItem(f"i{item}", 1.0, time_us) for item, time_us in zip(items, times, strict=True)]
        found.append(UserRecord(f"u{user:03}", "unknown", history=history[::-1]))
    return found


def test_recent_popularity_counts_for_users_who_return_to_a_new_fashion():
    """Users who were away get weights with recent popularity, which the others never have."""
    blend = choose(records(away_days=30, fashion=True)).settings.blend
    assert blend is not None
    assert blend.away[RECENT_POPULARITY] > 0
    assert not any(row[RECENT_POPULARITY] for row in blend.weights)


@pytest.mark.parametrize("away_days", [0, 30])
def test_without_a_fashion_or_a_pause_the_weights_stay(away_days):
    """If no user was away, or other weights gain nothing, users who return have those of the others."""
    blend = choose(records(away_days=away_days, fashion=False)).settings.blend
    assert blend is None or blend.away == ()


def test_only_users_who_were_away_for_a_day_are_held_out():
    """Users with a pause before the date are held out, and training sees none of their items after it."""
    split = Returning.of(split_at_dates(records(away_days=30, fashion=True)), most=1000)
    assert split is not None
    (task,) = split.tasks
    assert {task.records[row].user_id for row in task.users} == {f"u{user:03}" for user in range(RETURNING)}
    assert max(item.time_us for record in task.records for item in record.history) < START_US + 30 * DAY_US
    assert Returning.of(split_at_dates(records(away_days=0, fashion=True)), most=1000) is None


def test_users_who_return_twice_are_held_out_at_both_dates():
    """The second hold-out has only data before the first one's date, and is itself split at a pause."""
    days = [0] * 12 + [30] * 4 + [60] * 4
    users = []
    for user in range(60):
        history = [HistoryItem(f"i{place}", 1.0, START_US + days[place] * DAY_US + place) for place in range(20)]
        users.append(UserRecord(f"u{user:02}", "unknown", history=history[::-1]))
    split = Returning.of(split_at_dates(users), most=1000)
    assert split is not None
    found = [
        (task.users.size, task.held.nnz, max(item.time_us for record in task.records for item in record.history))
        for task in split.tasks
    ]
    assert found == [(60, 240, START_US + 30 * DAY_US + 15), (60, 240, START_US + 11)]


def test_newer_interactions_count_more():
    """The newest of two items has the highest share; the other one lost half in one half-life."""
    early, late = (
        UserRecord(user, "unknown", history=[HistoryItem(item, 1.0, time_us)])
        for user, item, time_us in (("u1", "a", 5), ("u2", "b", 6))
    )
    ratings = make_ratings([late, early])
    timeline = Timeline.of([late, early], ratings)
    assert timeline.newest_us == 6
    assert timeline.popularity(0.5).tolist() == [0.5, 1.0]
    untimed = Timeline.of([UserRecord("u1", "unknown", history=[HistoryItem("a", 1.0, 0)]), late], ratings)
    assert untimed.newest_us == 0
    assert untimed.popularity(RECENT).tolist() == [0.0, 0.0]
