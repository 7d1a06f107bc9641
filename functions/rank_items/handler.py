"""Decode, batch, encode."""

import asyncio

import msgspec

from functions.rank_items.batching import Batcher, BatchFacts
from recsys.contracts import wire
from recsys.contracts.problems import ServingError
from recsys.contracts.wire import BatchAnswer, Model, RankAnswer, RankedItem
from recsys.ranking.model import Query, Ranking
from recsys.serving.call import Call, Deadline, Reply

RankBatcher = Batcher[Query, Ranking]


class RankItems:
    """
    Answers which items suit a user best.

    Args:
        batcher: Ranks, several requests at a time.
        model: The identity of the artefact behind it.
    """

    def __init__(self, batcher: RankBatcher, *, model: Model) -> None:
        self._batcher = batcher
        self._model = model

    async def __call__(self, call: Call) -> Reply:
        """Rank for one request, or for each of several."""
        if wire.is_batch(call.body, "requests"):
            return await self._rank_many(call)
        query = decode_query(call.body)
        call.receipt.mark("decode")
        ranking, facts = await self._batcher.submit(query, deadline=call.deadline.at)
        _enter(facts, call)
        return Reply(self._encode(ranking))

    async def _rank_many(self, call: Call) -> Reply:
        requests = wire.rank_batch.decode(call.body).requests
        call.receipt.mark("decode")
        results = await asyncio.gather(*(self._rank_one(bytes(each), call.deadline) for each in requests))
        call.receipt.mark("model")
        return Reply(wire.encode(BatchAnswer(results)))

    async def _rank_one(self, body: bytes, deadline: Deadline) -> msgspec.Raw:
        try:
            ranking, _ = await self._batcher.submit(decode_query(body), deadline=deadline.at)
        except ServingError as error:
            return wire.error_result(error)
        return msgspec.Raw(self._encode(ranking))

    def _encode(self, ranking: Ranking) -> bytes:
        # Adding 0.0 turns a rounded -0.0 into 0.0.
        items = [
            RankedItem(item_id, round(score, 3) + 0.0)
            for item_id, score in zip(ranking.item_ids, ranking.scores, strict=True)
        ]
        return wire.encode(RankAnswer(items, self._model))


def decode_query(body: bytes) -> Query:
    """
    Return the query in *body*.

    Raises:
        NotJsonError, InvalidRequestError: as every door.
    """
    request = wire.rank_request.decode(body)
    return Query(request.features, request.history, request.top_k, request.exclude)


def _enter(facts: BatchFacts, call: Call) -> None:
    call.receipt.spend("fill", facts.fill_wait_s)
    call.receipt.spend("slot", facts.slot_wait_s)
    call.receipt.spend("model", facts.execution_s)
    call.receipt.note("batch", str(facts.size))
    call.receipt.note("cut", facts.reason)
