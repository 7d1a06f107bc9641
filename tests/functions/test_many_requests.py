"""A body with many requests makes one call to each hop, and each request has its own answer."""

import pytest

from chassis.wire.problems import DeadlineExceededError
from tests.functions.harness import FEATURES, RANKED, Harness


def test_a_batch_makes_one_call_to_each_hop():
    """A batch costs one call to each hop, and an invalid request in it fails with its own problem document."""
    harness = Harness(
        features={"results": [FEATURES, {**FEATURES, "history": []}]},
        ranking={"results": [RANKED, {"error": {"status": 503}}]},
    )
    results = harness.answer({"requests": [{"user_id": "a"}, {"user_id": 1}, {"user_id": "b", "top_k": 1}]})["results"]
    assert results[0] == {"user_id": "a", "recommendations": [{"item_id": "c", "score": 0.5}]}
    assert results[1]["error"]["errors"] == [{"path": "$.user_id", "detail": "must be a string, not a number"}]
    assert results[2] == {
        "user_id": "b",
        "recommendations": [{"item_id": "a", "score": 0.9}],
        "degraded": ["ranking"],
        "degraded_reasons": {"ranking": "dependency-failed"},
    }
    assert harness.features.sent == [{"user_ids": ["a", "b"]}]
    assert len(harness.ranking.sent) == 1


@pytest.mark.parametrize("strict", [False, True])
def test_a_failed_part_of_a_batch_fails_alone(monkeypatch, strict):
    """The requests of a failed part get the popular list, or the error if the caller is strict."""
    monkeypatch.setattr("functions.recommend.hops.MAX_REQUEST_BYTES", 100)
    harness = Harness({"results": [FEATURES, FEATURES]}, RANKED, DeadlineExceededError())
    prefer = [(b"prefer", b"handling=strict")] if strict else []
    results = harness.answer({"requests": [{"user_id": "a"}, {"user_id": "b", "top_k": 1}]}, prefer)["results"]
    assert results[0] == {"user_id": "a", "recommendations": [{"item_id": "c", "score": 0.5}]}
    if strict:
        assert results[1]["error"]["code"] == "deadline-exceeded"
    else:
        assert results[1] == {
            "user_id": "b",
            "recommendations": [{"item_id": "c", "score": 0.9}],
            "degraded": ["ranking"],
            "degraded_reasons": {"ranking": "deadline-exceeded"},
        }


def test_a_strict_batch_has_no_degraded_items():
    """A strict caller gets an error for each item that rank_items refuses, and answers for the rest."""
    harness = Harness(
        features={"results": [FEATURES, FEATURES]}, ranking={"results": [RANKED, {"error": {"status": 503}}]}
    )
    body = {"requests": [{"user_id": "a"}, {"user_id": "b"}]}
    results = harness.answer(body, [(b"prefer", b"handling=strict")])["results"]
    assert "degraded" not in results[0]
    assert results[1]["error"]["code"] == "dependency-failed"


def test_a_batch_without_valid_requests_calls_no_hop():
    """A batch in which every request is invalid calls no hop."""
    harness = Harness()
    results = harness.answer({"requests": [{}, {"user_id": ""}]})["results"]
    assert [each["error"]["status"] for each in results] == [422, 422]
    assert harness.features.sent == []


def test_an_unanswerable_item_of_a_batch_fails_alone():
    """Without a popular list, an item that rank_items refuses is an error among the answers."""
    harness = Harness(
        features={"results": [FEATURES, FEATURES]},
        ranking={"results": [RANKED, {"error": {}}]},
        popular=False,
    )
    results = harness.answer({"requests": [{"user_id": "a"}, {"user_id": "b"}]})["results"]
    assert "recommendations" in results[0]
    assert results[1]["error"]["status"] == 503
