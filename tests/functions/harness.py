"""The handler of recommend over two hops that answer as a test says."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, TypeVar

from chassis.call import Call, Deadline, Reply
from chassis.hop.client import HopAnswer
from chassis.receipt import Receipt
from chassis.wire.headers import RawHeaders
from chassis.wire.problems import DependencyError
from functions.recommend.handler import Recommend
from functions.recommend.hops import FeaturesClient, RankingClient
from functions.recommend.popular import PopularList
from functions.recommend.recommender import Recommender
from functions.recommend.settings import PopularSettings

T = TypeVar("T")

FEATURES = {"user_id": "ann", "features": {"age_group": "55+"}, "history": ["a", "b"], "as_of": None, "new": 1}
RANKED = {"items": [{"item_id": "c", "score": 0.5}], "model": {"name": "m", "version": "1"}}
POPULAR = [{"item_id": item_id, "score": 0.9} for item_id in "abcdef"]
DOWN = DependencyError("down")
# No test on a busy machine spends a notable part of this budget.
BUDGET_S = 1000.0


class FakeHop:
    """A hop that returns the given answers in order and repeats the last, and records the requests."""

    def __init__(self, *answers: object) -> None:
        self._answers = list(answers)
        self.sent: list[dict[str, Any]] = []
        self.budgets: list[float] = []

    async def send(self, body: bytes, *, call: Call, within_s: float, decode: Callable[[bytes], T]) -> HopAnswer[T]:
        self.sent.append(json.loads(body))
        self.budgets.append(within_s)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        await asyncio.sleep(0)
        if isinstance(answer, Exception):
            raise answer
        value = decode(json.dumps(answer).encode())
        return HopAnswer(value, 0.005, {"total": 0.004, "model": 0.003}, {"rev": "hop-1", "batch": "2"})


def make_call(body: object, headers: RawHeaders = (), *, seconds: float = BUDGET_S) -> Call:
    deadline = Deadline.after(seconds)
    return Call(json.dumps(body).encode(), headers, "id", Receipt(deadline.at - seconds), deadline)


class Harness:
    """The handler over two fake hops, with a popular list unless *popular* is false."""

    def __init__(
        self, features: object = FEATURES, ranking: object = RANKED, *more: object, popular: bool = True
    ) -> None:
        self.features, self.ranking = FakeHop(features), FakeHop(ranking, *more)
        listed = PopularList(RankingClient(FakeHop({"items": POPULAR})), PopularSettings(None, 60))
        if popular:
            asyncio.run(listed.refresh())
        self.handler = Recommend(
            Recommender(features=FeaturesClient(self.features), ranking=RankingClient(self.ranking), popular=listed)
        )

    def reply(self, body: object, headers: RawHeaders = (), *, seconds: float = BUDGET_S) -> tuple[Reply, Call]:
        call = make_call(body, headers, seconds=seconds)
        return asyncio.run(self._call(call)), call

    async def _call(self, call: Call) -> Reply:
        return await self.handler(call)

    def answer(self, body: object, headers: RawHeaders = ()) -> dict[str, Any]:
        document = json.loads(self.reply(body, headers)[0].body)
        assert isinstance(document, dict)
        return document
