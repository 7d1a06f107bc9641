"""The judgement of answers: a load test must distinguish wrong answers from right ones."""

import json

import pytest

from loadtests.answers import LoadAnswer, judge_event, judge_recommendations, judge_refusal

RECEIPT = 'model;dur=0.210, total;dur=3.102, batch;desc="4", rev;desc="recommend-00001"'


def answered(*items: tuple[str, float], user="u", receipt=RECEIPT, **more) -> LoadAnswer:
    body = {"user_id": user, "recommendations": [{"item_id": name, "score": score} for name, score in items], **more}
    return LoadAnswer(200, json.dumps(body).encode(), receipt)


def judged(answer: LoadAnswer, *, known=()):
    return judge_recommendations(answer, user_id="u", top_k=3, known=known)


def problem(status, code, **more):
    return LoadAnswer(status, json.dumps({"status": status, "code": code, **more}).encode())


def test_a_correct_answer_has_no_fault():
    """The answer is for the user, in order and without items of the history, and the batch size is read."""
    verdict = judged(answered(("a", 0.9), ("b", 0.9), ("c", -0.1)), known={"d"})
    assert (verdict.fault, verdict.wrong, verdict.degraded, verdict.batch) == (None, False, False, 4)
    assert verdict.items == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (answered(("a", 0.1), ("b", 0.9)), "scores not in descending order"),
        (answered(("a", 0.9), ("seen", 0.8)), "an item of the user's history"),
        (answered(("a", 0.9), ("a", 0.8)), "the same item twice"),
        (answered(("a", 0.9), user="v"), "answer for another user"),
        (answered(), "no recommendations"),
        (answered(*((f"i{n}", 1 - n / 10) for n in range(4))), "more items than requested"),
        (answered(("", 0.9)), "an item without id"),
        (answered(("a", 0.9), receipt=""), "no receipt (Server-Timing)"),
        (LoadAnswer(200, b'{"user_id":"u"}', RECEIPT), "malformed answer: KeyError"),
        (LoadAnswer(200, b'{"user_id":"u","recommendations":[{"item_id":"a"}]}', RECEIPT), "malformed answer: KeyError"),
        (LoadAnswer(200, b'{"user_id":"u","recommendations":7}', RECEIPT), "malformed answer: TypeError"),
        (LoadAnswer(200, b"[]", RECEIPT), "malformed answer: TypeError"),
        (LoadAnswer(200, b"OK", RECEIPT), "malformed answer: DecodeError"),
    ],
)  # fmt: skip
def test_a_wrong_answer_is_recognized(answer, fault):
    """A wrong answer is named and counts as wrong, not only as failed."""
    verdict = judged(answer, known={"seen"})
    assert (verdict.fault, verdict.wrong) == (fault, True)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (problem(503, "overloaded"), "status 503 (overloaded)"),
        (LoadAnswer(502, b"upstream"), "status 502"),
        (LoadAnswer(0, error="ConnectionRefusedError"), "no answer: ConnectionRefusedError"),
    ],
)
def test_a_missing_answer_is_failed_but_not_wrong(answer, fault):
    """A refusal or a broken connection fails the request without counting as a wrong answer."""
    assert judged(answer).fault == fault
    assert not judged(answer).wrong


def test_an_answer_without_features_may_contain_the_history():
    """The pipeline cannot know the history when the features are missing."""
    verdict = judged(answered(("seen", 0.9), degraded=["features"]), known={"seen"})
    assert (verdict.fault, verdict.degraded) == (None, True)


def test_the_popular_list_must_not_contain_the_history():
    """The history is available when only the ranking is missing."""
    assert judged(answered(("seen", 0.9), degraded=["ranking"]), known={"seen"}).wrong


@pytest.mark.parametrize(
    ("answer", "fault", "wrong"),
    [
        (LoadAnswer(202), None, False),
        (LoadAnswer(200, b'{"features":{}}'), None, False),
        (LoadAnswer(202, b"OK"), "status 202", True),
        (problem(503, "dependency-failed"), "status 503 (dependency-failed)", False),
    ],
)
def test_an_event_is_judged_by_its_status_and_body(answer, fault, wrong):
    """An event is accepted with an empty 202 or with a reply; a broker would retry a 202 with text."""
    verdict = judge_event(answer)
    assert (verdict.fault, verdict.wrong) == (fault, wrong)


def test_an_expected_refusal_is_a_success():
    """An invalid request that gets its 4xx is a success."""
    errors = [{"path": "$.user_id", "detail": "is missing"}]
    assert (
        judge_refusal(problem(422, "invalid-request", errors=errors), status=422, code="invalid-request").fault is None
    )
    assert judge_refusal(problem(400, "not-json"), status=400, code="not-json").fault is None


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        (answered(("a", 0.9)), True),
        (problem(500, "internal"), True),
        (problem(400, "not-json"), True),
        (problem(503, "overloaded"), False),
        (LoadAnswer(422, b"<html>"), True),
        (problem(422, "not-json"), True),
        (problem(422, "invalid-request"), True),
        (problem(422, "invalid-request", errors=[{"path": "$"}]), True),
    ],
)
def test_an_unexpected_answer_to_an_invalid_request_fails(answer, wrong):
    """A success, another refusal, and a refusal that names no fault are failures."""
    verdict = judge_refusal(answer, status=422, code="invalid-request")
    assert verdict.fault is not None
    assert verdict.wrong is wrong
