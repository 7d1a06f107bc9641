"""Decode, ask for features, ask for the ranking, encode."""

import asyncio
from typing import Protocol, TypeVar

import msgspec

from recsys.contracts import wire
from recsys.contracts.problems import DependencyError, ServingError
from recsys.contracts.wire import BatchAnswer, RecommendRequest
from recsys.serving.call import Call, Reply
from recsys.serving.client import HopAnswer

Part = TypeVar("Part")


class Hop(Protocol):
    """The way to another function."""

    async def send(self, body: bytes, *, call: Call) -> HopAnswer:
        """Post *body* on behalf of *call*; raises DependencyError or DeadlineExceededError."""
        ...


class _FeaturesPart(msgspec.Struct):
    """What of extract_features' answer goes on to rank_items, unread."""

    features: msgspec.Raw
    history: msgspec.Raw


class _RankCall(msgspec.Struct):
    features: msgspec.Raw
    history: msgspec.Raw
    top_k: int
    exclude: list[str]


class _RankPart(msgspec.Struct):
    items: msgspec.Raw


class _Answer(msgspec.Struct):
    user_id: str
    recommendations: msgspec.Raw


_features_part = msgspec.json.Decoder(_FeaturesPart)
_rank_part = msgspec.json.Decoder(_RankPart)


class Recommend:
    """
    Answers what to show a user, best first.

    Args:
        features: The way to extract_features.
        ranking: The way to rank_items.
    """

    def __init__(self, *, features: Hop, ranking: Hop) -> None:
        self._features = features
        self._ranking = ranking

    async def __call__(self, call: Call) -> Reply:
        """Recommend for one user, or for each of several."""
        if wire.is_batch(call.body, "requests"):
            return await self._recommend_many(call)
        return Reply(await self._recommend(wire.recommend_request.decode(call.body), call))

    async def _recommend_many(self, call: Call) -> Reply:
        requests = wire.recommend_batch.decode(call.body).requests
        results = await asyncio.gather(*(self._recommend_one(bytes(each), call) for each in requests))
        return Reply(wire.encode(BatchAnswer(results)))

    async def _recommend_one(self, body: bytes, call: Call) -> msgspec.Raw:
        try:
            return msgspec.Raw(await self._recommend(wire.recommend_request.decode(body), call))
        except ServingError as error:
            return wire.error_result(error)

    async def _recommend(self, request: RecommendRequest, call: Call) -> bytes:
        known = await self._features.send(wire.encode(wire.FeaturesRequest(request.user_id)), call=call)
        part = _decode(_features_part, known, "extract_features")
        body = wire.encode(_RankCall(part.features, part.history, request.top_k, request.exclude))
        ranked = await self._ranking.send(body, call=call)
        return wire.encode(_Answer(request.user_id, _decode(_rank_part, ranked, "rank_items").items))


def _decode(decoder: msgspec.json.Decoder[Part], answer: HopAnswer, hop: str) -> Part:
    try:
        return decoder.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DependencyError(f"{hop} answered something unreadable", retry_after_s=1.0) from error
