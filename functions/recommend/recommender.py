"""
The orchestration: fetches features, fetches ranked items, and degrades the answer if one of the two fails.

If a hop fails, the caller still gets recommendations within the budget, and the answer names the hop:

    features fail              ranked as for an unknown user, without history
    ranking fails              the last known popular list, without the user's history and exclusions
    both fail, no list known   the error
    ranking fails, filter      the error, because recommend does not know the attributes of the popular items

In strict mode the caller gets the error instead. If only some requests of a batch could not be ranked, only those get
errors.
"""

import math
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from chassis.call import Call
from chassis.hop.client import HopAnswer
from chassis.telemetry import definitions
from chassis.telemetry.instruments import Counter, Instrument, Totals
from chassis.wire.event_rules import parse_time
from chassis.wire.problems import DependencyError, Fault, InvalidRequestError, ServingError
from functions.recommend.arms import Arms
from functions.recommend.hops import UNKNOWN_USER, FeaturesClient, Known, RankCall, Ranked, RankingClient, RankOutcome
from functions.recommend.popular import PopularList
from recsys import metrics
from recsys.contracts import wire
from recsys.contracts.wire import MAX_HISTORY, Exploration, RankedItem, RecommendRequest, SessionItem
from recsys.experiments.assignment import Treatment

# The largest share of the budget for features. Ranking needs the rest, even if the features fail.
FEATURES_SHARE = 0.4
# The time reserved for the answer itself: a share of what is left, and at most this many seconds. An event loop in which
# hundreds of calls time out together needs it.
ANSWER_SHARE, ANSWER_S = 0.1, 0.25

EXPOSURE = "exposure"
_RANDOM_BYTES, _RANDOM_PARTS = 8, 512
# The phases of the hops that the receipt of an answer names.
_PHASES = ("fill", "slot", "model", "store")

_history = msgspec.json.Decoder(list[str])


class RecommendAnswer(Struct, frozen=True, omit_defaults=True):
    """
    An answer of recommend.

    Attributes:
        user_id: The user of the request.
        recommendations: Items and scores, best first.
        degraded: The hops that failed; absent if none did.
        degraded_reasons: The code of the error, by hop.
        exposure_id: Identifies the answer in events; "" unless the request includes it.
    """

    user_id: str
    recommendations: Raw
    degraded: tuple[str, ...] = ()
    degraded_reasons: dict[str, str] = {}
    exposure_id: str = ""


class Recommended(Struct, frozen=True):
    """
    An answer, and how it was made.

    Attributes:
        answer: The answer.
        model: The model that ranked it, JSON; null if no model did.
        propensities: The propensity of each item, JSON; null if nothing was drawn at random.
        exposure_id: The id that seeded the draw, and identifies the answer in events; "" if nothing was drawn.
        treatment: The experiments and arms of the user; None for none.
        arm_failed: Whether the arm could not rank, so that the default did.
    """

    answer: RecommendAnswer
    model: Raw
    propensities: Raw = Raw(b"null")
    exposure_id: str = ""
    treatment: Treatment | None = None
    arm_failed: bool = False


class _Asked(Struct, frozen=True):
    """A request, the user's features, the treatment, the exploration, and the id that seeds it; "" without one."""

    request: RecommendRequest
    known: Known
    treatment: Treatment | None
    exploration: Exploration | None
    exposure_id: str

    def call(self) -> RankCall:
        """Return the call to rank_items."""
        request, arm = self.request, self.treatment
        return RankCall(
            self.known.features,
            join_session(request.history, self.known.history),
            request.top_k,
            request.exclude,
            request.filter or UNSET,
            request.diversity or (arm and arm.diversity) or UNSET,
            self.known.avoided or UNSET,
            request.item_id or UNSET,
            _item_fields(request) if request.include else UNSET,
            _newest(request, self.known),
            request.at or UNSET,
            self.known.attributes,
            request.context or UNSET,
            self.exploration or UNSET,
            self.exposure_id or UNSET,
        )


class Recommender:
    """
    Answers requests with the help of the other two functions.

    Args:
        features: The client for extract_features.
        ranking: The client for rank_items.
        popular: The list to answer with if ranking fails.
        exploration: Draws a part of the lists at random; None draws none.
        arms: Ranks the calls of users in experiments; None for no experiments.
    """

    def __init__(
        self,
        *,
        features: FeaturesClient,
        ranking: RankingClient,
        popular: PopularList,
        exploration: Exploration | None = None,
        arms: Arms | None = None,
    ) -> None:
        self._features = features
        self._ranking = ranking
        self._arms = arms
        self._popular = popular
        self._exploration = exploration
        self._degraded = Counter(metrics.DEGRADED, known=[("features",), ("ranking",)])

    def instruments(self) -> list[Instrument]:
        """Return the recommender's metrics."""
        waiting = Totals(
            definitions.QUEUE_DEPTH, lambda: {("hop",): self._features.waiting() + self._ranking.waiting()}
        )
        return [self._degraded, waiting, *(self._arms.instruments() if self._arms else ())]

    async def recommend(
        self, requests: Sequence[RecommendRequest], *, call: Call, strict: bool
    ) -> list[Recommended | ServingError]:
        """
        Answer each of *requests*, with one round trip to each hop. Long requests need several to rank_items.

        Raises:
            ServingError: a hop failed, and *strict* forbids a degraded answer.
        """
        self._popular.note_request()
        known, unknown = await self._fetch(requests, call)
        if strict and unknown:
            raise unknown
        asked = [self._ask(request, who) for request, who in zip(requests, known, strict=True)]
        outcomes, failed = await self._rank(asked, call, strict=strict)
        return [
            self._answer(each, outcome, unknown, strict=strict, arm_failed=place in failed)
            for place, (each, outcome) in enumerate(zip(asked, outcomes, strict=True))
        ]

    async def find_faults(self, requests: Sequence[RecommendRequest], *, call: Call) -> list[Sequence[Fault]]:
        """Return the faults that rank_items finds in each of *requests*; none if it does not answer in time."""
        probes = [
            RankCall(
                UNKNOWN_USER.features,
                UNKNOWN_USER.history,
                top_k=1,
                filter=each.filter or UNSET,
                item_id=each.item_id or UNSET,
                context=each.context or UNSET,
            )
            for each in requests
        ]
        if not any(each.is_checked for each in probes):
            return [()] * len(requests)
        try:
            answer = await self._ranking.rank(probes, call=call, within_s=call.deadline.left_s() * FEATURES_SHARE)
        except ServingError:
            return [()] * len(requests)
        return [each.caller_faults() if isinstance(each, Ranked) else () for each in answer.value]

    def _ask(self, request: RecommendRequest, known: Known) -> _Asked:
        # Without a user there is neither an arm nor an event, so nothing could be learnt from the list.
        arm = self._arms.treat(request.user_id) if self._arms else None
        exploration = (arm and arm.exploration) or self._exploration if request.user_id else None
        return _Asked(request, known, arm, exploration, draw_exposure_id() if exploration else "")

    async def _fetch(
        self, requests: Sequence[RecommendRequest], call: Call
    ) -> tuple[Sequence[Known], ServingError | None]:
        user_ids = [request.user_id for request in requests if request.user_id]
        if not user_ids:
            return [UNKNOWN_USER] * len(requests), None
        began_s = call.receipt.elapsed_s()
        try:
            answer = await self._features.fetch(user_ids, call=call, within_s=call.deadline.left_s() * FEATURES_SHARE)
        except ServingError as error:
            call.receipt.spend("features-failed", call.receipt.elapsed_s() - began_s)
            return [UNKNOWN_USER] * len(requests), error
        _add_receipt("features", answer, call)
        found = iter(answer.value)
        return [next(found) if request.user_id else UNKNOWN_USER for request in requests], None

    async def _rank(
        self, asked: Sequence[_Asked], call: Call, *, strict: bool
    ) -> tuple[Sequence[RankOutcome], frozenset[int]]:
        """Return the outcome of each of *asked*, and the places of those whose arm failed."""
        calls = [each.call() for each in asked]
        left_s = call.deadline.left_s()
        within_s = left_s - min(ANSWER_S, left_s * ANSWER_SHARE)
        began_s = call.receipt.elapsed_s()
        failed: frozenset[int] = frozenset()
        try:
            if self._arms:
                treatments = [each.treatment for each in asked]
                answer, failed = await self._arms.rank(calls, treatments, call=call, within_s=within_s)
            else:
                answer = await self._ranking.rank(calls, call=call, within_s=within_s)
        except ServingError as error:
            call.receipt.spend("ranking-failed", call.receipt.elapsed_s() - began_s)
            if strict:
                raise
            return [error] * len(asked), failed
        _add_receipt("ranking", answer, call)
        return answer.value, failed

    def _answer(
        self, asked: _Asked, outcome: RankOutcome, unknown: ServingError | None, *, strict: bool, arm_failed: bool
    ) -> Recommended | ServingError:
        request = asked.request
        reasons = {"features": unknown.code} if unknown else {}
        if isinstance(outcome, Ranked) and outcome.items:
            items, model, propensities = outcome.items, outcome.model, outcome.propensities
        elif isinstance(outcome, Ranked) and (faults := outcome.caller_faults()):
            return InvalidRequestError(faults=faults)
        else:
            error = (
                outcome
                if isinstance(outcome, ServingError)
                else DependencyError("rank_items could not rank this request")
            )
            if request.filter and not strict:
                return DependencyError("rank_items could not rank, and the popular list cannot be filtered")
            popular = [] if strict else self._pick_popular(request, asked.known)
            if not popular:
                return error
            reasons["ranking"] = error.code
            items, model, propensities = Raw(wire.encode(popular)), Ranked().model, Ranked().propensities
        for hop in reasons:
            self._degraded.add(hop)
        answer = RecommendAnswer(request.user_id, items, tuple(reasons), reasons)
        return Recommended(answer, model, propensities, asked.exposure_id, asked.treatment, arm_failed)

    def _pick_popular(self, request: RecommendRequest, known: Known) -> list[RankedItem]:
        history = _history.decode(join_session(request.history, known.history))
        return self._popular.pick([*request.exclude, request.item_id or "", *history, *known.avoided], request.top_k)


def draw_exposure_id() -> str:
    """
    Return an id that no other answer has, greater than those of earlier milliseconds.

    A log adds ids that grow at the end of its index. Ids in random order would cost five times the time.
    """
    return f"{time.time_ns() // 1_000_000:012x}{next(_random_parts)}"


def _draw_parts() -> Iterator[str]:
    """Yield random parts of ids. The kernel returns the bytes of hundreds as fast as those of one."""
    while True:
        digits = os.urandom(_RANDOM_BYTES * _RANDOM_PARTS).hex()
        yield from (digits[start : start + 2 * _RANDOM_BYTES] for start in range(0, len(digits), 2 * _RANDOM_BYTES))


_random_parts = _draw_parts()


def _item_fields(request: RecommendRequest) -> Sequence[str] | UnsetType:
    """Return the fields of `include` that rank_items adds."""
    return [each for each in request.include if each != EXPOSURE] or UNSET


def join_session(session: Sequence[SessionItem], history: Raw) -> Raw:
    """
    Return the items of *session*, newest first, and the stored *history* after them.

    Items without a time keep their order, and are newer than items with one.
    """
    if not session:
        return history
    times = [parse_time(item.time).timestamp() if item.time else math.inf for item in session]
    order = sorted(range(len(session)), key=lambda place: -times[place])
    item_ids = [session[place].item_id for place in order]
    return Raw(wire.encode(list(dict.fromkeys([*item_ids, *_history.decode(history)]))[:MAX_HISTORY]))


def _newest(request: RecommendRequest, known: Known) -> Raw | UnsetType:
    """Return the time of the user's newest stored interaction; the user of a session or of an item is present."""
    present = request.history or request.item_id or bytes(known.as_of) == b"null"
    return UNSET if present else known.as_of


def _add_receipt(hop: str, answer: HopAnswer[Any], call: Call) -> None:
    """Add a hop's receipt to the request's: its phases, the rest of its time, and the time of the network."""
    receipt, durations = call.receipt, answer.durations
    total_s = rest_s = min(durations.get("total", 0.0), answer.spent_s)
    for name in _PHASES:
        if name in durations:
            receipt.spend(name, durations[name])
            rest_s -= durations[name]
    receipt.spend(hop, max(0.0, rest_s))
    receipt.spend(f"{hop}-network", answer.spent_s - total_s)
    for name in ("batch", "cut"):
        if name in answer.facts:
            receipt.note(name, answer.facts[name])
    if "rev" in answer.facts:
        receipt.note(f"{hop}-rev", answer.facts["rev"])
