"""Users who hold much of the data are found, and a retraining leaves them out."""

import pytest

from offline.content import StoreContent
from offline.dominance import MOST_OF_ONE_USER, largest_share, without_dominant
from offline.retraining import RetrainingRules, retrain
from recrank.artefact import read_artefact
from recstore.erasures import digest_user
from recsys.declaration.reader import default_declaration
from recsys.records import HistoryItem, UserRecord
from tests.offline.bad_artefacts import flood
from tests.offline.tastes import choose_nothing, make_records, put_serving


def user(name: str, *weights: float) -> UserRecord:
    return UserRecord(name, "unknown", history=[HistoryItem(f"i{n}", weight, 1) for n, weight in enumerate(weights)])


@pytest.mark.parametrize(
    ("records", "share"),
    [
        ([], 0.0),
        ([user("a")], 0.0),
        ([user("a", 1.0, 1.0, 1.0), user("b", 1.0)], 0.75),
        ([user("a", 1.0), user("b", 9.0)], 0.9),
    ],
    ids=["no users", "no pairs", "pairs", "weights"],
)
def test_the_largest_share_is_of_pairs_or_of_weights(records, share):
    """The largest share of a user is a share of the pairs or of the weights, the larger of the two."""
    assert largest_share(records) == pytest.approx(share)


def test_users_behind_a_dominant_user_are_found():
    """The second heaviest user has a small share beside the heaviest, and most of the rest."""
    usual = [user(f"u{n}", 1.0, 1.0) for n in range(20)]
    kept, dominant = without_dominant([user("second", 1e6), *usual, user("first", 1e9)])
    assert [each.user_id for each in dominant] == ["first", "second"]
    assert kept == usual
    assert largest_share(kept) <= MOST_OF_ONE_USER


def test_a_heavy_user_does_not_stop_the_loop(tmp_path, monkeypatch):
    """
    The retraining leaves out a user with most of the new pairs, says so, and serves a model of the others.

    With this user, half of the new pairs would be newer than almost all of the others.
    """
    choose_nothing(monkeypatch)
    state, records = put_serving(tmp_path, make_records(days=8)), make_records(days=12)
    newest_us = max(item.time_us for record in records for item in record.history)
    history = [HistoryItem(item.item_id, item.weight, newest_us) for item in flood(0.6)(records)]
    content = StoreContent([*records, UserRecord("heavy", "unknown", history=history)], default_declaration())
    said: list[str] = []
    model = retrain(state, content, deploy=lambda _: None, rules=RetrainingRules(fewest=100), say=said.append)
    assert model is not None
    assert said[0].startswith("left out a user with more than 10%")
    assert digest_user("heavy") in said[0]
    assert "heavy" not in said[0]
    facts = read_artefact(model).manifest.training
    assert (facts["users"], facts["largest_share"] <= MOST_OF_ONE_USER) == (len(records), True)
