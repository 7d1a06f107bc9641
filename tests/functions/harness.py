"""The handlers of recommend and rank_items, over hops and models that answer as a test says."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from chassis.batching.batcher import Batcher
from chassis.batching.queue import BatchLimits
from chassis.call import Call, Deadline, Reply
from chassis.hop.client import Hop, HopAnswer
from chassis.receipt import Receipt
from chassis.wire.cloudevents import CloudEvent, write_binary, write_structured
from chassis.wire.headers import RawHeaders
from chassis.wire.problems import DependencyError
from functions.rank_items.handler import RankItems
from functions.recommend.handler import Recommend
from functions.recommend.hops import FeaturesClient, RankingClient
from functions.recommend.popular import PopularList
from functions.recommend.recommender import Recommender
from functions.recommend.settings import PopularSettings
from recrank.filters import ItemAttributes
from recrank.model import Query, Ranking, RankingModel
from recsys.contracts.wire import Model

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


def make_call(body: object = None, headers: RawHeaders = (), *, seconds: float = BUDGET_S) -> Call:
    deadline = Deadline.after(seconds)
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Call(encoded, headers, "id", Receipt(deadline.at - seconds), deadline)


def event_call(*sent: CloudEvent) -> Call:
    """Return the call that brings an event, or a batch of events."""
    if len(sent) == 1:
        return make_call(sent[0].data, write_binary(sent[0]))
    body = b"[" + b",".join(map(write_structured, sent)) + b"]"
    return make_call(body, [(b"content-type", b"application/cloudevents-batch+json")])


def make_recommender(features: Hop, ranking: Hop, **more: Any) -> Recommender:
    """Return a recommender over two hops, with an empty popular list unless *more* has another one."""
    client = RankingClient(ranking)
    more.setdefault("popular", PopularList(client, PopularSettings(None, 60)))
    return Recommender(features=FeaturesClient(features), ranking=client, **more)


def rank_request(**fields: object) -> dict[str, object]:
    """Return a request to rank_items."""
    features = {"age_group": "25-34", "avg_session_duration": 0, "total_purchases": 0, "engagement_score": 0}
    return {"features": features, "history": ["item_1"], **fields}


@contextmanager
def ranking_by(rank: RankingModel | Callable[[Sequence[Query]], list[Ranking]], **options: Any) -> Iterator[RankItems]:
    """Return the handler of rank_items over a model, or over a function that ranks."""
    identity, attributes = Model("m", "1"), ItemAttributes([])
    if isinstance(rank, RankingModel):
        identity, attributes, rank = rank.identity, rank.attributes, rank.rank
    limits = BatchLimits(max_batch_size=8, max_wait_s=0.0, max_queue_size=8)
    with ThreadPoolExecutor(1) as executor:
        batcher = Batcher(rank, limits=limits, executor=executor)
        yield RankItems(batcher, model=identity, attributes=lambda: attributes, **options)
        batcher.drain()


class Harness:
    """The handler over two fake hops, with a popular list unless *popular* is false."""

    def __init__(
        self, features: object = FEATURES, ranking: object = RANKED, *more: object, popular: bool = True
    ) -> None:
        self.features, self.ranking = FakeHop(features), FakeHop(ranking, *more)
        listed = PopularList(RankingClient(FakeHop({"items": POPULAR})), PopularSettings(None, 60))
        if popular:
            asyncio.run(listed.refresh())
        self.handler = Recommend(make_recommender(self.features, self.ranking, popular=listed))

    def reply(self, body: object, headers: RawHeaders = (), *, seconds: float = BUDGET_S) -> tuple[Reply, Call]:
        call = make_call(body, headers, seconds=seconds)
        return asyncio.run(self._call(call)), call

    async def _call(self, call: Call) -> Reply:
        return await self.handler(call)

    def answer(self, body: object, headers: RawHeaders = ()) -> dict[str, Any]:
        document = json.loads(self.reply(body, headers)[0].body)
        assert isinstance(document, dict)
        return document
