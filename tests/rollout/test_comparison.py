"""The comparison of two revisions' answers."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.agreement import correlation, overlap
from tools.rollout.comparison import (
    RolloutTrial,
    TrialAnswer,
    compare,
    count_faults,
    figures,
    ranking,
)

GOOD = TrialAnswer(10.0, ranking=("a", "b", "c"), revision="r-1")
rankings = st.lists(st.integers(0, 30).map(str), unique=True, min_size=2, max_size=12)


def trial(current: TrialAnswer = GOOD, candidate: TrialAnswer = GOOD, live: TrialAnswer = GOOD) -> RolloutTrial:
    return RolloutTrial(current=current, candidate=candidate, live=live)


def test_figures_exclude_faults_from_the_times():
    """Faults count as requests but not in the times, and p99 is one of the measured times."""
    answers = [TrialAnswer(float(ms)) for ms in range(1, 201)] + [TrialAnswer(9999.0, fault="status 500")]
    found = figures(answers)
    assert (found.requests, found.faults, found.p50_ms, found.p99_ms) == (201, 1, 100.5, 198.0)
    assert found.error_rate == pytest.approx(1 / 201)


def test_no_requests_are_no_fault():
    """A step in which no live request reached the candidate has an error rate of 0."""
    assert figures([]).error_rate == 0
    assert figures([TrialAnswer(1.0, fault="status 500")]).p99_ms == 0


@given(rankings)
def test_a_ranking_agrees_with_itself_and_not_with_its_reverse(one):
    """Equal rankings have the highest overlap and correlation, and reversed ones the lowest correlation."""
    assert (overlap(one, one), correlation(one, one)) == (1.0, 1.0)
    assert correlation(one, one[::-1]) == -1.0


@given(rankings, rankings)
def test_correlation_is_kendalls(one, other):
    """The correlation counts the agreeing pairs of the shared items and is symmetric."""
    shared = {*one} & {*other}
    agreeing = [
        1 if (one.index(a) < one.index(b)) == (other.index(a) < other.index(b)) else -1
        for a, b in itertools.combinations(shared, 2)
    ]
    expected = sum(agreeing) / len(agreeing) if agreeing else None
    assert correlation(one, other) == correlation(other, one) == expected


def test_live_answers_are_assigned_by_their_receipts():
    """A live answer belongs to the revision it names; a nameless fault counts against a candidate with traffic."""
    mine, nameless = TrialAnswer(30.0, revision="r-2"), TrialAnswer(5.0, fault="status 503")
    trials = [trial(), trial(live=mine), trial(live=nameless)]
    found = compare(trials, share=5, candidate="r-2")
    assert (found.live.requests, found.live.faults, found.live_current.requests) == (2, 1, 1)
    assert found.live.p50_ms == 30.0
    assert found.fault == "status 503"
    assert compare(trials, share=0, candidate="r-2").live.requests == 1


def test_faults_are_counted_from_the_worse_source():
    """The count is the larger one of the shadow faults and the live faults."""
    bad, mine = TrialAnswer(1.0, fault="status 500"), TrialAnswer(1.0, fault="status 500", revision="r-2")
    trials = [trial(candidate=bad), trial(live=mine), trial(live=mine), trial(current=bad)]
    assert count_faults(trials, share=5, candidate="r-2") == 2


def test_agreement_is_averaged_over_trials():
    """Each trial counts once; a trial without both rankings is left out."""
    other = TrialAnswer(1.0, ranking=("b", "a", "x"))
    found = compare([trial(), trial(candidate=other)], share=0, candidate="r-2")
    assert found.overlap == pytest.approx((1 + 2 / 3) / 2)
    assert found.correlation == 0.0
    nothing = compare([trial(current=TrialAnswer(1.0, fault="no answer"))], share=0, candidate="r-2")
    assert (nothing.overlap, nothing.correlation) == (None, None)


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        ({"items": [{"item_id": "a", "score": 1}, {"item_id": "b", "score": 0}]}, ("a", "b")),
        ({"recommendations": [{"item_id": "a", "score": 1}]}, ("a",)),
        ({"history": ["b", "a"], "features": {}}, ("b", "a")),
        ({"results": []}, None),
        ([], None),
    ],
)
def test_every_functions_answer_has_a_ranking(body, ids):
    """The ranking is the items, the recommendations, or the history from the newest item."""
    assert ranking(body) == ids
