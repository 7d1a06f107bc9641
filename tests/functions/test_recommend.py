import asyncio
import json

import pytest

from functions.recommend.handler import Recommend
from functions.recommend.settings import Settings
from recsys.contracts.problems import DeadlineExceededError, DependencyError, InvalidRequestError
from recsys.serving.call import Call, Deadline
from recsys.serving.client import HopAnswer
from recsys.serving.receipt import Receipt
from recsys.settings import SettingsError


def call(body: object) -> Call:
    return Call(json.dumps(body).encode(), [], "id", Receipt(0.0), Deadline.after(1))


class FakeHop:
    """A hop that answers what it is told to and remembers what it was sent."""

    def __init__(self, *answers: object) -> None:
        self._answers = list(answers)
        self.sent: list[object] = []

    async def send(self, body: bytes, *, call: Call) -> HopAnswer:
        self.sent.append(json.loads(body))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        await asyncio.sleep(0)
        if isinstance(answer, Exception):
            raise answer
        return HopAnswer(answer if isinstance(answer, bytes) else json.dumps(answer).encode(), 0.001, {}, {})


FEATURES = {"user_id": "ann", "features": {"age_group": "55+"}, "history": ["a", "b"], "as_of": None, "new": 1}
RANKED = {"items": [{"item_id": "c", "score": 0.5}], "model": {"name": "m", "version": "1"}}


async def test_the_two_hops_in_turn():
    """Features and history go on to the ranker as they came, with what the caller asked for."""
    features, ranking = FakeHop(FEATURES), FakeHop(RANKED)
    reply = await Recommend(features=features, ranking=ranking)(call({"user_id": "ann", "top_k": 7, "exclude": ["x"]}))
    assert json.loads(reply.body) == {"user_id": "ann", "recommendations": [{"item_id": "c", "score": 0.5}]}
    assert features.sent == [{"user_id": "ann"}]
    assert ranking.sent == [{"features": {"age_group": "55+"}, "history": ["a", "b"], "top_k": 7, "exclude": ["x"]}]


async def test_the_batch_door_answers_in_order_each_on_its_own():
    """A bad request in a batch gets its own problem document and disturbs nobody."""
    handler = Recommend(features=FakeHop(FEATURES), ranking=FakeHop(RANKED))
    reply = await handler(call({"requests": [{"user_id": "a"}, {"user_id": 1}, {"user_id": "b", "top_k": 500}]}))
    results = json.loads(reply.body)["results"]
    assert results[0]["user_id"] == "a"
    assert results[1]["error"]["errors"] == [{"path": "$.user_id", "detail": "must be a string, not a number"}]
    assert results[2]["error"]["status"] == 422


@pytest.mark.parametrize("body", [{}, {"user_id": "a", "other": 1}, {"requests": []}, {"requests": [{}] * 257}, []])
async def test_bad_requests_are_refused_before_any_hop(body):
    """What is invalid costs no call."""
    features = FakeHop(FEATURES)
    with pytest.raises(InvalidRequestError):
        await Recommend(features=features, ranking=FakeHop(RANKED))(call(body))
    assert features.sent == []


@pytest.mark.parametrize("garbage", [b"", b"<html>", b"{}", b"[]", b"\xff", b'{"features":1}'])
async def test_a_hop_that_answers_garbage_is_a_failed_dependency(garbage):
    """What cannot be read is not passed on."""
    with pytest.raises(DependencyError, match="unreadable"):
        await Recommend(features=FakeHop(garbage), ranking=FakeHop(RANKED))(call({"user_id": "a"}))
    with pytest.raises(DependencyError, match="unreadable"):
        await Recommend(features=FakeHop(FEATURES), ranking=FakeHop(garbage))(call({"user_id": "a"}))


@pytest.mark.parametrize("error", [DependencyError("down"), DeadlineExceededError()])
async def test_what_a_hop_fails_with_is_what_the_caller_gets(error):
    """Errors keep their meaning across hops."""
    with pytest.raises(type(error)):
        await Recommend(features=FakeHop(error), ranking=FakeHop(RANKED))(call({"user_id": "a"}))


def test_settings_name_both_hops():
    """URLs must be there and be URLs."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({"RANK_ITEMS_URL": "rank-items:80"})
    assert [fault.partition(" ")[0] for fault in caught.value.faults] == ["EXTRACT_FEATURES_URL", "RANK_ITEMS_URL"]
    with pytest.raises(SettingsError):
        Settings.from_env({"RANK_ITEMS_URL": "http://a:port", "EXTRACT_FEATURES_URL": "http://a"})
