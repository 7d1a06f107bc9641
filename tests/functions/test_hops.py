import asyncio
from collections.abc import Callable
from typing import TypeVar

import msgspec
import pytest

from functions.recommend.hops import FeatureSource, RankCall, Ranking
from recsys.batching import BatchLimits
from recsys.serving.call import Call, Deadline
from recsys.serving.client import HopAnswer
from recsys.serving.receipt import Receipt

T = TypeVar("T")

LIMITS = BatchLimits(max_batch_size=64, max_wait_s=0.0, max_queue_size=100, slots=4)


class Door:
    """A hop that answers single and batch requests, and remembers the bodies."""

    def __init__(self, one: dict[str, object]) -> None:
        self.bodies: list[dict[str, list[object]]] = []
        self._one = one

    async def send(self, body: bytes, *, call: Call, within_s: float, decode: Callable[[bytes], T]) -> HopAnswer[T]:
        asked = msgspec.json.decode(body)
        self.bodies.append(asked)
        many = asked.get("user_ids") or asked.get("requests")
        answer = {"results": [self._one] * len(many)} if many else self._one
        return HopAnswer(decode(msgspec.json.encode(answer)), 0.001, {}, {})


def make_call() -> Call:
    return Call(b"", [], "id", Receipt(0.0), Deadline.after(5))


@pytest.mark.parametrize(("limits", "requests"), [(LIMITS, 1), (None, 3)])
async def test_features_asked_for_at_once_are_one_request(limits, requests):
    """Coalescing is what the limits say: with them three calls of a turn are one request, without them three."""
    door = Door({"features": {}, "history": []})
    source = FeatureSource(door, coalesce=limits)
    answers = await asyncio.gather(*(source.fetch([user], call=make_call(), within_s=1) for user in "abc"))
    assert len(door.bodies) == requests
    assert [len(answer.value) for answer in answers] == [1, 1, 1]


@pytest.mark.parametrize(("limits", "requests"), [(LIMITS, 1), (None, 3)])
async def test_rankings_asked_for_at_once_are_one_request(limits, requests):
    """The same for rank_items."""
    door = Door({"items": []})
    ranking = Ranking(door, coalesce=limits)
    one = RankCall(msgspec.Raw(b"{}"), msgspec.Raw(b"[]"), 5)
    answers = await asyncio.gather(*(ranking.rank([one], call=make_call(), within_s=1) for _ in "abc"))
    assert len(door.bodies) == requests
    assert [len(answer.value) for answer in answers] == [1, 1, 1]
    assert ranking.waiting() == 0
