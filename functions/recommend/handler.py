"""Decode, recommend, encode."""

from collections.abc import Sequence

import msgspec

from functions.recommend.recommending import Answer, Recommender
from recsys.contracts import wire
from recsys.contracts.problems import ServingError
from recsys.contracts.wire import BatchAnswer, RecommendRequest
from recsys.serving.call import Call, Reply

_STRICT = (b"preference-applied", b"handling=strict")


class Recommend:
    """Answers what to show a user, or each of several."""

    def __init__(self, recommender: Recommender) -> None:
        self._recommender = recommender

    async def __call__(self, call: Call) -> Reply:
        """Answer the single door or the batch door."""
        strict = _prefers_strict(call)
        if wire.is_batch(call.body, "requests"):
            body = await self._recommend_many(call, strict=strict)
        else:
            request = wire.recommend_request.decode(call.body)
            (answer,) = await self._recommender.recommend([request], call=call, strict=strict)
            if isinstance(answer, ServingError):
                raise answer
            body = wire.encode(answer)
        call.receipt.account("app")
        return Reply(body, headers=(_STRICT,) if strict else ())

    async def _recommend_many(self, call: Call, *, strict: bool) -> bytes:
        decoded = [_decode(bytes(each)) for each in wire.recommend_batch.decode(call.body).requests]
        requests = [each for each in decoded if isinstance(each, RecommendRequest)]
        answers = iter(await self._recommender.recommend(requests, call=call, strict=strict) if requests else ())
        results = [next(answers) if isinstance(each, RecommendRequest) else each for each in decoded]
        return _encode_results(results)


def _decode(body: bytes) -> RecommendRequest | ServingError:
    try:
        return wire.recommend_request.decode(body)
    except ServingError as error:
        return error


def _encode_results(results: Sequence[Answer | ServingError]) -> bytes:
    return wire.encode(
        BatchAnswer(
            [
                wire.error_result(each) if isinstance(each, ServingError) else msgspec.Raw(wire.encode(each))
                for each in results
            ]
        )
    )


def _prefers_strict(call: Call) -> bool:
    """Tell whether the caller would rather have an error than a degraded answer (RFC 7240, `handling=strict`)."""
    preferences = (call.header(b"prefer") or "").lower().replace(" ", "").replace('"', "")
    return "handling=strict" in preferences.replace(";", ",").split(",")
