import time

import pytest

from chassis.wire.problems import DeadlineExceededError, DependencyError, InvalidRequestError
from tests.functions.harness import DOWN, Harness


def test_the_hops_are_called_in_sequence():
    """The ranker receives features and history unchanged, together with the caller's own parameters."""
    harness = Harness()
    assert harness.answer({"user_id": "ann", "top_k": 7, "exclude": ["x"]}) == {
        "user_id": "ann",
        "recommendations": [{"item_id": "c", "score": 0.5}],
    }
    assert harness.features.sent == [{"user_id": "ann"}]
    assert harness.ranking.sent == [
        {"features": {"age_group": "55+"}, "history": ["a", "b"], "top_k": 7, "exclude": ["x"]}
    ]


def test_features_get_a_share_of_the_budget(monkeypatch):
    """The features hop gets a share of the time left, and the ranking hop nearly all of the rest."""
    harness = Harness()
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    harness.reply({"user_id": "ann"}, seconds=1.0)
    assert harness.features.budgets == [pytest.approx(0.4)]
    assert harness.ranking.budgets == [pytest.approx(0.9)]


def test_the_receipt_accounts_for_the_whole_time():
    """The receipt lists the phases of both hops, the network time and the function's own time."""
    _, call = Harness().reply({"user_id": "ann"})
    assert {
        "features",
        "features-network",
        "ranking",
        "ranking-network",
        "model",
        "app",
    } <= call.receipt.durations.keys()
    assert call.receipt.facts["features-rev"] == call.receipt.facts["ranking-rev"] == "hop-1"
    assert call.receipt.facts["batch"] == "2"


def test_a_failed_features_hop_degrades_the_answer():
    """Without features, the ranker treats the user as unknown, and the answer says that it is degraded."""
    harness = Harness(features=DOWN)
    assert harness.answer({"user_id": "ann"}) == {
        "user_id": "ann",
        "recommendations": [{"item_id": "c", "score": 0.5}],
        "degraded": ["features"],
        "degraded_reasons": {"features": "dependency-failed"},
    }
    assert harness.ranking.sent[0]["history"] == []


def test_a_failed_ranking_hop_falls_back_to_the_popular_list():
    """Without a ranking, the answer is the popular list without the excluded items."""
    answer = Harness(ranking=DeadlineExceededError()).answer({"user_id": "ann", "top_k": 2, "exclude": ["c"]})
    assert answer == {
        "user_id": "ann",
        "recommendations": [{"item_id": "d", "score": 0.9}, {"item_id": "e", "score": 0.9}],
        "degraded": ["ranking"],
        "degraded_reasons": {"ranking": "deadline-exceeded"},
    }


def test_a_popular_list_in_place_of_similar_items_leaves_out_the_item():
    """A page about an item does not recommend that item, also if rank_items cannot answer."""
    answer = Harness(features=DOWN, ranking=DOWN).answer({"item_id": "a", "top_k": 2})
    assert [each["item_id"] for each in answer["recommendations"]] == ["b", "c"]


def test_an_answer_remains_when_both_hops_fail():
    """Without both hops, the answer is the popular list and names both as degraded."""
    answer = Harness(features=DOWN, ranking=DOWN).answer({"user_id": "ann", "top_k": 1})
    assert answer["recommendations"] == [{"item_id": "a", "score": 0.9}]
    assert answer["degraded"] == ["features", "ranking"]


def test_a_failure_without_a_popular_list_is_an_error():
    """Without a popular list, the answer is the ranking hop's error."""
    with pytest.raises(DeadlineExceededError):
        Harness(ranking=DeadlineExceededError(), popular=False).reply({"user_id": "ann"})


@pytest.mark.parametrize("prefer", ["handling=strict", "respond-async, handling=strict", 'Handling="strict"; x=1'])
@pytest.mark.parametrize("failing", ["features", "ranking"])
def test_strict_callers_get_an_error(prefer, failing):
    """A caller that prefers strict handling gets the error instead of a degraded answer."""
    harness = Harness(features=DOWN) if failing == "features" else Harness(ranking=DOWN)
    with pytest.raises(DependencyError):
        harness.reply({"user_id": "ann"}, [(b"prefer", prefer.encode())])


@pytest.mark.parametrize(
    ("lines", "strict"),
    [
        (["respond-async", "handling=strict"], True),
        (["wait=5, respond-async", "foo; bar=1, handling\t= strict"], True),
        (["handling=lenient", "handling=strict"], False),
        (["handling=strict", "handling=lenient"], True),
        (["foo; handling=strict"], False),
    ],
)
def test_preferences_may_span_several_header_lines(lines, strict):
    """The lines are read as one list; the first of equal preferences counts, and a parameter is not a preference."""
    reply, _ = Harness().reply({"user_id": "ann"}, [(b"prefer", line.encode()) for line in lines])
    assert bool(reply.headers) is strict


def test_strict_handling_is_confirmed():
    """The answer to a strict request says that the preference was applied."""
    reply, _ = Harness().reply({"user_id": "ann"}, [(b"prefer", b"handling=strict")])
    assert reply.headers == ((b"preference-applied", b"handling=strict"),)
    assert Harness().reply({"user_id": "ann"}, [(b"prefer", b"handling=lenient")])[0].headers == ()


@pytest.mark.parametrize("body", [{}, {"user_id": "a", "other": 1}, {"requests": []}, {"requests": [{}] * 257}, []])
def test_invalid_requests_are_refused_before_any_hop(body):
    """An invalid request calls no hop."""
    harness = Harness()
    with pytest.raises(InvalidRequestError):
        harness.reply(body)
    assert harness.features.sent == []
