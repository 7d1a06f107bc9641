"""The handler: decodes a request, passes it to the recommender, and encodes the answer."""

from collections.abc import Sequence

import msgspec

from chassis.call import Call, Reply
from chassis.server.events import EventRoute, EventRouter, EventRoutes, data_as, make_reply
from chassis.wire.cloudevents import CloudEvent, is_event
from chassis.wire.decoder import with_more
from chassis.wire.problems import InvalidRequestError, ServingError
from functions.recommend.outbox import Outbox
from functions.recommend.recommender import EXPOSURE, RecommendAnswer, Recommended, Recommender
from recsys.contracts import events, wire
from recsys.contracts.wire import BatchAnswer, RecommendRequest

SOURCE = "/functions/recommend"

_STRICT = (b"preference-applied", b"handling=strict")


class Recommend:
    """
    Answers requests for the recommendations of one user, or of several.

    Args:
        recommender: Makes the answers.
        outbox: Sends an event about each answer; None sends none.

    Attributes:
        routes: The events that it handles.
    """

    def __init__(self, recommender: Recommender, *, outbox: Outbox | None = None) -> None:
        self._recommender = recommender
        self._outbox = outbox
        self.routes: EventRoutes = {events.REQUESTED: EventRoute(data_as(events.requested), self._complete)}
        self._events = EventRouter(self.routes)

    async def __call__(self, call: Call) -> Reply:
        """Answer a single request, a batch request, or an event."""
        if is_event(call.headers):
            return await self._events(call)
        strict = _prefers_strict(call)
        headers = (_STRICT,) if strict else ()
        if (requests := wire.split_batch(call.body)) is not None:
            body = await self._recommend_many(requests, call, strict=strict)
        else:
            try:
                request = wire.recommend_request.decode(call.body)
            except InvalidRequestError as refusal:
                (explained,) = await self._explain([(call.body, refusal)], call)
                raise explained from None
            answer, exposure_id = await self._recommend_one(request, call, strict=strict)
            body = wire.encode(answer)
            if exposure_id:
                headers = (*headers, (wire.EXPOSURE_HEADER, exposure_id.encode()))
        call.receipt.account("app")
        return Reply(body, headers=headers)

    async def _complete(self, asked: events.RequestedData, event: CloudEvent, call: Call) -> CloudEvent:
        """Reply to `recommendation.requested.v1` with the recommendations."""
        request = RecommendRequest(asked.user_id, asked.top_k, asked.exclude)
        answer, _ = await self._recommend_one(request, call, strict=False)
        data = wire.encode(answer)
        return make_reply(event, call, type_=events.COMPLETED, source=SOURCE, subject=asked.user_id, data=data)

    async def _recommend_one(
        self, request: RecommendRequest, call: Call, *, strict: bool
    ) -> tuple[RecommendAnswer, str]:
        (result,) = await self._recommender.recommend([request], call=call, strict=strict)
        if isinstance(result, ServingError):
            raise result
        return self._report(result, request, call)

    async def _explain(
        self, refused: Sequence[tuple[bytes, InvalidRequestError]], call: Call
    ) -> list[InvalidRequestError]:
        """Return each refusal of a body with the faults that only rank_items can find in the other parts of the body."""
        mended = [wire.recommend_request.mended(body, refusal)[:1] for body, refusal in refused]
        found = iter(await self._recommender.find_faults([each for one in mended for each in one], call=call))
        return [
            with_more(refusal, next(found)) if each else refusal
            for (_, refusal), each in zip(refused, mended, strict=True)
        ]

    async def _recommend_many(self, bodies: Sequence[msgspec.Raw], call: Call, *, strict: bool) -> bytes:
        decoded = wire.recommend_request.decode_each(bodies)
        refused = {place: each for place, each in enumerate(decoded) if isinstance(each, InvalidRequestError)}
        if refused:
            explained = await self._explain([(bytes(bodies[place]), each) for place, each in refused.items()], call)
            for place, refusal in zip(refused, explained, strict=True):
                decoded[place] = refusal
        requests = [each for each in decoded if isinstance(each, RecommendRequest)]
        made = await self._recommender.recommend(requests, call=call, strict=strict) if requests else ()
        answers = (
            each if isinstance(each, ServingError) else self._report(each, request, call)[0]
            for request, each in zip(requests, made, strict=True)
        )
        results = (next(answers) if isinstance(each, RecommendRequest) else each for each in decoded)
        return wire.encode(
            BatchAnswer(
                [
                    wire.error_result(each) if isinstance(each, ServingError) else msgspec.Raw(wire.encode(each))
                    for each in results
                ]
            )
        )

    def _report(self, recommended: Recommended, request: RecommendRequest, call: Call) -> tuple[RecommendAnswer, str]:
        """Report an answer; return it, and its exposure id: "" if it is not reported."""
        answer = recommended.answer
        if not (self._outbox and answer.user_id):
            return answer, ""
        took_s = call.receipt.elapsed_s()
        exposure_id = self._outbox.note(recommended, request_id=call.request_id, took_s=took_s)
        if exposure_id and EXPOSURE in request.include:
            answer = msgspec.structs.replace(answer, exposure_id=exposure_id)
        return answer, exposure_id


def _prefers_strict(call: Call) -> bool:
    """
    Tell whether the caller prefers an error to a degraded answer (RFC 7240, `handling=strict`).

    Several header lines form one list. If a preference appears twice in it, the first counts (section 2).
    """
    lines = [value for name, value in call.headers if name == b"prefer"]
    if not lines:
        return False
    text = "".join(b",".join(lines).decode("latin-1").lower().replace('"', "").split())
    preferences = (each.partition(";")[0] for each in text.split(","))
    return next((each for each in preferences if each.startswith("handling=")), "") == "handling=strict"
