"""Creates requests, each with a function that checks its answer. No I/O; `loadtests.users` sends the requests."""

import datetime as dt
import itertools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from loadtests.answers import AnswerVerdict, LoadAnswer, judge_event, judge_recommendations, judge_refusal
from loadtests.ledger import Ledger
from loadtests.population import Population
from recsys.contracts.events import INTERACTION

Kind = Literal["returning", "newcomer", "event", "mistake"]

# Percentages: known users, unknown users, interactions with an item shown before, invalid requests.
SHARES: Mapping[Kind, int] = {"returning": 80, "newcomer": 6, "event": 10, "mistake": 4}
# The latency figures of a run cover these kinds only.
RECOMMENDATION_KINDS: frozenset[Kind] = frozenset({"returning", "newcomer"})

_JSON = {"Content-Type": "application/json"}
_TOP_K = (5, 5, 5, 10, 20)


@dataclass(frozen=True)
class Mistake:
    """An invalid request, and the status and problem code of the expected refusal."""

    body: bytes
    status: int
    code: str
    headers: Mapping[str, str] = field(default_factory=lambda: _JSON)


MISTAKES = (
    Mistake(b'{"user_id":"user_1"', 400, "not-json"),
    Mistake(b"\xff\xfe", 400, "not-json"),
    Mistake(b"{}", 422, "invalid-request"),
    Mistake(b'{"user_id":7}', 422, "invalid-request"),
    Mistake(b'{"user_id":"user_1","top_k":500}', 422, "invalid-request"),
    Mistake(b'{"user_id":"user_1","topk":5}', 422, "invalid-request"),
    Mistake(b'{"user_id":"user_1"}', 415, "unsupported-media-type", {"Content-Type": "text/csv"}),
)


@dataclass(frozen=True)
class JudgedRequest:
    """A request to send, and the function that checks its answer."""

    kind: Kind
    url: str
    body: bytes
    headers: Mapping[str, str]
    judge: Callable[[LoadAnswer], AnswerVerdict]


class Traffic:
    """
    Creates the requests of a run.

    Args:
        url: URL of recommend.
        events_url: URL that takes interaction events; None sends none.
        population: Draws the users.
        ledger: Known histories; accepted events extend them.
        rng: Draws everything else.
        run: Unique name of this run. It is the events' source, by which the pipeline recognises duplicates.
        token: Bearer token for every request; empty for none.
    """

    def __init__(
        self,
        *,
        url: str,
        events_url: str | None,
        population: Population,
        ledger: Ledger,
        rng: random.Random,
        run: str,
        token: str = "",
    ) -> None:
        self._url, self._events_url = url, events_url
        self._population, self._ledger, self._rng = population, ledger, rng
        self._authorization = {"Authorization": f"Bearer {token}"} if token else {}
        self._run = run
        self._numbers = itertools.count(1)

    @property
    def sends_events(self) -> bool:
        """Whether the run sends interaction events."""
        return self._events_url is not None

    def draw(self) -> JudgedRequest:
        """Create the next request, of a kind drawn by `SHARES`."""
        (kind,) = self._rng.choices(list(SHARES), list(SHARES.values()))
        return self.make(kind)

    def make(self, kind: Kind) -> JudgedRequest:
        """Create a request of *kind*. Without an item to click on, an event becomes a request for recommendations."""
        if kind == "mistake":
            return self._mistake()
        if kind == "newcomer":
            return self._recommendation(kind, self._population.newcomer())
        offer = self._ledger.take_offer(self._rng) if kind == "event" and self._events_url else None
        return self._event(*offer) if offer else self._recommendation("returning", self._population.returning())

    def _recommendation(self, kind: Kind, user_id: str) -> JudgedRequest:
        top_k, known = self._rng.choice(_TOP_K), self._ledger.known(user_id)

        def judge(answer: LoadAnswer) -> AnswerVerdict:
            verdict = judge_recommendations(answer, user_id=user_id, top_k=top_k, known=known)
            if verdict.fault is None:
                self._ledger.offer(user_id, verdict.items)
            return verdict

        body = msgspec.json.encode({"user_id": user_id, "top_k": top_k})
        return JudgedRequest(kind, self._url, body, _JSON | self._authorization, judge)

    def _event(self, user_id: str, item_id: str) -> JudgedRequest:
        kind = self._rng.choices(("view", "click", "purchase"), (70, 25, 5))[0]
        moment = dt.datetime.now(dt.UTC).isoformat().replace("+00:00", "Z")
        body = msgspec.json.encode({"user_id": user_id, "kind": kind, "item_id": item_id, "time": moment})
        attributes = {
            "ce-specversion": "1.0",
            "ce-type": INTERACTION,
            "ce-source": f"/loadtests/{self._run}",
            "ce-id": str(next(self._numbers)),
        }

        def judge(answer: LoadAnswer) -> AnswerVerdict:
            verdict = judge_event(answer)
            if verdict.fault is None:
                self._ledger.accept(user_id, item_id)
            return verdict

        return JudgedRequest("event", self._events_url or "", body, _JSON | attributes | self._authorization, judge)

    def _mistake(self) -> JudgedRequest:
        mistake = self._rng.choice(MISTAKES)
        return JudgedRequest(
            "mistake",
            self._url,
            mistake.body,
            {**mistake.headers, **self._authorization},
            lambda answer: judge_refusal(answer, status=mistake.status, code=mistake.code),
        )
