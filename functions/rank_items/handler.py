"""Decode requests, rank them in batches, and encode the answers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import msgspec
from msgspec import UNSET

from chassis.batching.batcher import Batcher, BatchFacts
from chassis.batching.bulk import BulkSubmitter, ItemOutcome
from chassis.call import Call, Reply
from chassis.server.events import EventRoute, EventRouter, data_as, make_reply
from chassis.telemetry.tracing import Attributes, Span
from chassis.wire.cloudevents import CloudEvent, is_event
from chassis.wire.problems import Fault, InvalidRequestError, ServingError
from recrank.answers import answer_items, describe_item
from recrank.filters import ItemAttributes
from recrank.model import Query, Ranking, RankingModel
from recsys.contracts import events, wire
from recsys.contracts.wire import BatchAnswer, Model, RankAnswer
from recsys.declaration.context import find_faults
from recsys.declaration.types import ContextField

SOURCE = "/functions/rank-items"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

RankBatcher = Batcher[Query, Ranking]


class RankItems:
    """
    The handler of rank_items: it answers which items suit a user best.

    Args:
        batcher: Ranks several requests at a time.
        model: Identity of the artefact, for rankings that do not name it.
        attributes: Returns the attributes of the items now.
        filters: The attributes that a filter may name; None for all.
        context: The declared values that a request may carry, by name.
        catalogue: Returns the model that knows titles, attributes and ids of the items now; None leaves them out of
            answers.
    """

    def __init__(
        self,
        batcher: RankBatcher,
        *,
        model: Model,
        attributes: Callable[[], ItemAttributes],
        filters: Sequence[str] | None = None,
        context: Mapping[str, ContextField] | None = None,
        catalogue: Callable[[], RankingModel] | None = None,
    ) -> None:
        self._batcher = batcher
        self._bulk = BulkSubmitter(batcher)
        self._model = model
        self._attributes = attributes
        self._filters = filters
        self._context = context or {}
        self._catalogue = catalogue
        self._events = EventRouter({events.EXTRACTED: EventRoute(data_as(events.extracted), self._complete)})

    async def __call__(self, call: Call) -> Reply:
        """Rank for a single request, a batch request or an event."""
        if is_event(call.headers):
            return await self._events(call)
        if (requests := wire.split_batch(call.body)) is not None:
            return await self._rank_many(requests, call)
        query = wire.rank_request.read(call.body, self._query)
        call.receipt.mark("decode")
        ranking, facts = await self._batcher.submit(query, deadline=call.deadline.at)
        _enter(facts, ranking, call)
        return Reply(self._encode(ranking))

    async def _complete(self, asked: events.ExtractedData, event: CloudEvent, call: Call) -> CloudEvent:
        """Reply to `features.extracted.v1` with the recommendations, as the second step of a Sequence."""
        query = Query(
            asked.features,
            asked.history,
            asked.top_k,
            [*asked.exclude, *(asked.avoided or ())],
            as_of_us=_microseconds(asked.as_of or None),
            user_attributes=asked.user_attributes or {},
        )
        ranking, facts = await self._batcher.submit(query, deadline=call.deadline.at)
        _enter(facts, ranking, call)
        model = ranking.model or self._model
        data = wire.encode({"user_id": asked.user_id, "recommendations": answer_items(ranking), "model": model})
        return make_reply(event, call, type_=events.COMPLETED, source=SOURCE, subject=asked.user_id, data=data)

    async def _rank_many(self, bodies: Sequence[msgspec.Raw], call: Call) -> Reply:
        queries = wire.rank_request.read_each(bodies, self._query)
        call.receipt.mark("decode")
        async with aclosing(self._bulk.rank(queries, deadline=call.deadline.at)) as outcomes:
            results = [self._result(each, call) async for each in outcomes]
        return Reply(wire.encode(BatchAnswer(results)))

    def _query(self, request: wire.RankRequest) -> Query:
        """
        Return *request* as a query.

        Raises:
            InvalidRequestError: the filter or `item_id` names something that the catalogue does not have, the context does
                not suit the declaration, an exploration has no id of its exposure, or the item to include has no id.
        """
        if (request.filter or request.item_id or request.context or request.exploration or request.include) and (
            faults := list(self._faults(request))
        ):
            raise InvalidRequestError(faults=faults)
        exclude = [*request.exclude, *request.avoided] if request.avoided else request.exclude
        history: Sequence[str] = request.history
        if request.item_id:
            # Similar items are those that suit a user whose history is this item.
            exclude, history = [*exclude, *history], [request.item_id]
        return Query(
            request.features,
            history,
            request.top_k,
            exclude,
            request.filter,
            request.diversity,
            request.include,
            _microseconds(request.as_of),
            _microseconds(request.at),
            request.exploration,
            request.exposure_id,
            request.user_attributes,
            request.context,
            request.item_id,
        )

    def _faults(self, request: wire.RankRequest) -> Iterator[Fault]:
        yield from self._attributes().faults(request.filter, "$.filter", allowed=self._filters)
        if request.item_id and self._catalogue and self._catalogue().row_of(request.item_id) is None:
            yield Fault("$.item_id", "the catalogue has no such item")
        yield from find_faults(request.context, self._context, "$.context")
        if request.exploration and not request.exposure_id:
            yield Fault("$.exposure_id", "is missing; an exploration needs it")
        if "item" in request.include and not request.item_id:
            yield Fault("$.item_id", "is missing; the item that is included is named by it")

    def _result(self, outcome: ItemOutcome[Ranking], call: Call) -> msgspec.Raw:
        if isinstance(outcome, ServingError):
            return wire.error_result(outcome)
        ranking, facts = outcome
        _enter(facts, ranking, call)
        return msgspec.Raw(self._encode(ranking))

    def _encode(self, ranking: Ranking) -> bytes:
        catalogue = self._catalogue() if self._catalogue and ranking.include else None
        return wire.encode(
            RankAnswer(
                answer_items(ranking, catalogue),
                ranking.model or self._model,
                ranking.propensities or UNSET,
                (describe_item(ranking, catalogue) if catalogue else None) or UNSET,
            )
        )


def _microseconds(moment: datetime | None) -> int | None:
    """Return *moment* in microseconds since the epoch."""
    return None if moment is None else (moment - _EPOCH) // timedelta(microseconds=1)


def _enter(facts: BatchFacts, ranking: Ranking, call: Call) -> None:
    """Record the waits and the batch of a request in its receipt. The last batch of a batch request is recorded."""
    call.receipt.durations.update(fill=facts.fill_wait_s, slot=facts.slot_wait_s, model=facts.execution_s)
    call.receipt.durations.update(ranking.seconds)
    call.receipt.note("batch", str(facts.size))
    call.receipt.note("cut", facts.reason)
    if call.span.trace_id is not None:
        _record(facts, call.span)


def _record(facts: BatchFacts, span: Span) -> None:
    span.record("wait", began=facts.began - facts.fill_wait_s - facts.slot_wait_s, ended=facts.began)
    attributes: Attributes = {"batch.size": facts.size, "batch.cut": facts.reason}
    span.record("model", began=facts.began, ended=facts.began + facts.execution_s, attributes=attributes)
