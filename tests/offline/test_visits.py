"""Held-out visits: a ranker learns and is judged on requests at the time of the interactions that are to be found."""

import numpy as np
import pytest

from offline.als import AlsSettings
from offline.evaluation.studies import PER_USER, Data, study_per_user, study_unseen
from offline.interactions import Interactions
from offline.reading.lines import Row
from offline.rehearsal import rehearse
from offline.training import BlendSettings, ModelSettings
from offline.visits import split_visits
from recsys.records import HistoryItem, UserRecord
from tests.offline.generated_shop import AGE, declare

HOUR_US = 3_600_000_000
DECLARED = declare(AGE)
SETTINGS = ModelSettings(
    AlsSettings(factors=8, epochs=1),
    blend=BlendSettings(ordered=True, views=(), lengths=(0,), weights=((1.0, 0.0, 0.0),)),
)


def history(*minutes: int) -> list[HistoryItem]:
    """Return a history of items at *minutes*, newest first."""
    return [HistoryItem(f"i{minute}", 1.0, minute * 60_000_000) for minute in minutes]


@pytest.mark.parametrize(
    ("minutes", "visits"),
    [
        ((), []),
        ((7,), [[7]]),
        ((60, 30, 0), [[60, 30, 0]]),
        ((61, 30, 0), [[30, 0], [61]]),
        ((100, 100, 69, 0), [[0], [69], [100, 100]]),
    ],
)
def test_a_pause_of_more_than_half_an_hour_ends_a_visit(minutes, visits):
    """The oldest visit comes first; the items of a visit stay newest first."""
    found = [[item.time_us // 60_000_000 for item in visit] for visit in split_visits(history(*minutes))]
    assert found == visits


def test_a_ranker_learns_from_requests_at_the_time_of_each_visit():
    """Each held-out visit is a request at its beginning; the user's earlier items are known, held-out ones too."""
    pattern = [*range(0, 8 * 60, 60), 600, 601]
    records = [
        UserRecord(f"u{user}", "unknown", history=history(*[user + minute for minute in reversed(pattern)]))
        for user in range(1, 61)
    ]
    ahead, newcomers = rehearse(records, SETTINGS, DECLARED, items={}, shown={}, ahead=True)
    assert len(ahead.queries) == 60
    for user, query, held in zip((ahead.users + 1).tolist(), ahead.queries, ahead.held, strict=True):
        assert (query.at_us, query.as_of_us) == ((user + 600) * 60_000_000, (user + 420) * 60_000_000)
        assert set(held) == {f"i{user + 600}", f"i{user + 601}"}
        assert len(query.history) == 8
    # A newcomer asks at the time of the first item that is not known.
    first = [query for query in newcomers.queries if not query.history]
    assert {query.as_of_us for query in first} == {None}
    assert all(len(held) == 1 for query, held in zip(newcomers.queries, newcomers.held, strict=True) if query.history)
    assert max(np.bincount(newcomers.users)) == 4


def test_two_held_out_visits_are_two_requests():
    """The second request knows the items of the first visit."""
    records = [
        UserRecord(f"u{user}", "unknown", history=history(*range(user + 540, user - 1, -60))) for user in range(1, 61)
    ]
    ahead, _ = rehearse(records, SETTINGS, DECLARED, items={}, shown={}, ahead=True)
    assert len(ahead.queries) == 120
    first, second = ahead.queries[0], ahead.queries[60]
    assert (len(first.history), len(second.history)) == (8, 9)
    assert (first.at_us, second.at_us) == (481 * 60_000_000, 541 * 60_000_000)
    assert second.as_of_us == first.at_us


def rows() -> Interactions:
    return Interactions.of(
        Row(f"u{user}", f"i{user}-{number}", 1.0, number * HOUR_US + user) for user in range(10) for number in range(10)
    )


def test_an_evaluation_with_features_asks_at_the_next_visit():
    """The items of the next visit are to be found. Without features, each user asks after the newest known item."""
    plain = study_per_user(Data(rows()), holdout="temporal", seed=0).panels[PER_USER]
    asked = study_per_user(Data(rows(), declaration=DECLARED), holdout="temporal", seed=0).panels[PER_USER]
    for user, (before, after) in enumerate(zip(plain.records, asked.records, strict=True)):
        assert before == after
        assert plain.asked_at(before) == 7 * HOUR_US + user
        assert asked.asked_at(after) == 8 * HOUR_US + user
    assert np.diff(plain.held.indptr).tolist() == [2] * 10
    assert np.diff(asked.held.indptr).tolist() == [1] * 10


def test_unseen_users_with_features_ask_at_their_next_visit():
    """A user without a known item asks at the time of the first held-out item, not at the present time."""
    panel = study_unseen(Data(rows(), declaration=DECLARED), ahead=True).panels["0"]
    assert [panel.asked_at(record) for record in panel.records] == [int(each.user_id[1:]) for each in panel.records]
    assert np.diff(panel.held.indptr).tolist() == [1] * len(panel.records)
