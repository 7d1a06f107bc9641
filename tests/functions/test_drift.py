"""The distributions of the training, and the counts of the requests in their buckets."""

from collections import Counter
from collections.abc import Sequence

import msgspec
import pytest

from functions.rank_items.drift import EVERY, Drift
from recrank.model import Query, Ranking
from recrank.reference import Buckets, make_buckets, measure
from recsys import metrics
from recsys.contracts.wire import Condition, Features

ANN = Features("25-34", 30.0, 2, 0.5)
LIST = Ranking(list("abcdef"), [1.0, 0.9, 0.8, 0.7, 0.6, 0.5])
REFERENCE = {"score": Buckets([0.3, 0.7], [0.2, 0.3, 0.5]), "total_purchases": Buckets([0, 5], [0.5, 0.25, 0.25])}


def query(*history: str, as_of_us: int | None = 1, conditions: Sequence[Condition] = ()) -> Query:
    return Query(ANN, history, 6, filter=conditions, as_of_us=as_of_us)


def read(drift: Drift, definition: object) -> dict[tuple[str, ...], float]:
    """Return the values of the metric that are not 0, by labels."""
    (found,) = [each for each in drift.instruments() if each.definition is definition]
    samples = found.collect().samples
    return {tuple(sample.labels.values()): sample.value for sample in samples if sample.value}


def test_buckets_hold_equal_shares():
    """A thousand different values fall into ten buckets of a hundred; the last bucket has no end."""
    buckets = make_buckets(range(1000))
    assert buckets.bounds == list(range(100, 1000, 100))
    assert sum(buckets.shares) == pytest.approx(1.0)
    assert all(abs(share - 0.1) < 0.002 for share in buckets.shares)
    assert (buckets.place(-5), buckets.place(100), buckets.place(101), buckets.place(10**9)) == (0, 0, 1, 9)


@pytest.mark.parametrize("values", [[0.0] * 50, [0, 0, 0, 0, 1], [3.5], [1, 2, 2, 2, 2, 2, 2, 9]])
def test_equal_values_share_a_bucket(values):
    """However few different values there are, the shares are those of the buckets in which the values are counted."""
    buckets = make_buckets(values)
    counts = Counter(map(buckets.place, values))
    assert [counts[place] / len(values) for place in range(len(buckets.shares))] == pytest.approx(buckets.shares)


@pytest.mark.parametrize(("bounds", "shares"), [([1.0], [1.0]), ([2.0, 1.0], [0.2, 0.3, 0.5])])
def test_a_damaged_distribution_is_refused(bounds, shares):
    """A manifest with it cannot be decoded, so the instance does not start with it."""
    with pytest.raises(msgspec.ValidationError, match="bounds of a distribution rise"):
        msgspec.convert({"bounds": bounds, "shares": shares}, Buckets)


def test_a_request_has_a_value_of_each_measure():
    """An unknown age group counts as unknown, and a short list has no score."""
    values = measure(Features("methuselah", 30.0, 2, 0.5), LIST.scores)
    assert values == {
        "age_group": 6,
        "avg_session_duration": 30.0,
        "total_purchases": 2,
        "engagement_score": 0.5,
        "score": 0.6,
    }
    assert "score" not in measure(ANN, [1.0])


def test_each_sixteenth_request_is_counted_whatever_the_batches():
    """Batches of any size count the same requests, in the buckets of the training, by version."""
    for size in (1, 3, 8, 48):
        drift = Drift(REFERENCE, version="v1", knows={"a", "b"}.__contains__)
        ranked = drift.watching(lambda queries: [LIST] * len(queries))
        for _ in range(0, 48, size):
            assert ranked([query("a", "z", "b")] * size) == [LIST] * size
        counted = 48 // EVERY
        assert read(drift, metrics.DRIFT_REQUESTS) == {
            ("score", "1", "v1"): counted,
            ("total_purchases", "1", "v1"): counted,
        }
        assert read(drift, metrics.HISTORY_ITEMS) == {("known",): 2 * counted, ("unknown",): counted}


def test_only_requests_of_known_users_for_their_own_list_count():
    """Unknown users, sessions, similar items and filtered lists are not like the training."""
    drift = Drift(REFERENCE, version="v1", knows=lambda _: True)
    drift.count([query("a", as_of_us=None)] * EVERY, [LIST] * EVERY)
    drift.count([query("a", conditions=[Condition("genre", ["x"])])] * EVERY, [LIST] * EVERY)
    assert read(drift, metrics.DRIFT_REQUESTS) == {}
    assert read(drift, metrics.HISTORY_ITEMS) == {}


def test_without_a_reference_nothing_is_compared():
    """An artefact of an earlier training serves, and has neither shares nor counts; unknown items are counted."""
    drift = Drift(None, version="v1", knows=lambda _: False)
    drift.count([query("a")] * EVERY, [LIST] * EVERY)
    assert read(drift, metrics.DRIFT_REQUESTS) == read(drift, metrics.DRIFT_EXPECTED) == {}
    assert read(drift, metrics.HISTORY_ITEMS) == {("unknown",): 1}


def test_the_expected_shares_are_those_of_the_training():
    """Each bucket has its share of the training as a gauge."""
    drift = Drift(REFERENCE, version="v1", knows=lambda _: True)
    assert read(drift, metrics.DRIFT_EXPECTED)["score", "2", "v1"] == 0.5


def test_another_artefact_is_counted_from_zero():
    """If the instance takes over another model, its reference and version replace those of the former one."""
    drift = Drift(REFERENCE, version="v1", knows=lambda _: True)
    drift.follow(None, version="v2")
    (requests, expected, _) = (each.collect().samples for each in drift.instruments())
    assert (requests, expected) == ([], [])
    drift.follow(REFERENCE, version="v3")
    (requests, _, _) = (each.collect().samples for each in drift.instruments())
    assert {(sample.labels["version"], sample.value) for sample in requests} == {("v3", 0.0)}
