"""What is sent, and who judges what comes back. No I/O: the users of `loadtests.users` carry it out."""

import datetime as dt
import itertools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from loadtests.answers import Answer, Verdict, judge_event, judge_recommendations, judge_refusal
from loadtests.ledger import Ledger
from loadtests.population import Population
from recsys.contracts.events import INTERACTION

Kind = Literal["returning", "newcomer", "event", "mistake"]

# Of a hundred requests: most by somebody who was there before; some click on what they were shown; a few know no API.
SHARES: Mapping[Kind, int] = {"returning": 80, "newcomer": 6, "event": 10, "mistake": 4}
# Kinds whose latency is what a user waits for.
ASKING: frozenset[Kind] = frozenset({"returning", "newcomer"})

_JSON = {"Content-Type": "application/json"}
_TOP_K = (5, 5, 5, 10, 20)


@dataclass(frozen=True)
class Mistake:
    """A request that has to be refused, and how."""

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
class Exchange:
    """A request to send, and the judge of its answer."""

    kind: Kind
    url: str
    body: bytes
    headers: Mapping[str, str]
    judge: Callable[[Answer], Verdict]


class Traffic:
    """
    Makes the requests of a run.

    Args:
        url: The public door.
        events_url: Where interaction events go; None sends none.
        population: Who calls.
        ledger: What is known of them; learns from what is accepted.
        rng: The source of chance.
        run: Names this run; events are known by it, so two runs must not share one.
        token: Sent with every request where there is one.
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
        """Whether interaction events have somewhere to go."""
        return self._events_url is not None

    def draw(self) -> Exchange:
        """Make the next request, of a kind drawn by `SHARES`."""
        (kind,) = self._rng.choices(list(SHARES), list(SHARES.values()))
        return self.make(kind)

    def make(self, kind: Kind) -> Exchange:
        """Make a request of *kind*; an event becomes a question where nobody has been shown anything to click on."""
        if kind == "mistake":
            return self._err()
        if kind == "newcomer":
            return self._ask(kind, self._population.newcomer())
        offer = self._ledger.take_offer(self._rng) if kind == "event" and self._events_url else None
        return self._tell(*offer) if offer else self._ask("returning", self._population.returning())

    def _ask(self, kind: Kind, user_id: str) -> Exchange:
        top_k, known = self._rng.choice(_TOP_K), self._ledger.known(user_id)

        def judge(answer: Answer) -> Verdict:
            verdict = judge_recommendations(answer, user_id=user_id, top_k=top_k, known=known)
            if verdict.fault is None:
                self._ledger.offer(user_id, verdict.items)
            return verdict

        body = msgspec.json.encode({"user_id": user_id, "top_k": top_k})
        return Exchange(kind, self._url, body, _JSON | self._authorization, judge)

    def _tell(self, user_id: str, item_id: str) -> Exchange:
        kind = self._rng.choices(("view", "click", "purchase"), (70, 25, 5))[0]
        moment = dt.datetime.now(dt.UTC).isoformat().replace("+00:00", "Z")
        body = msgspec.json.encode({"user_id": user_id, "kind": kind, "item_id": item_id, "time": moment})
        attributes = {
            "ce-specversion": "1.0",
            "ce-type": INTERACTION,
            "ce-source": f"/loadtests/{self._run}",
            "ce-id": str(next(self._numbers)),
        }

        def judge(answer: Answer) -> Verdict:
            verdict = judge_event(answer)
            if verdict.fault is None:
                self._ledger.accept(user_id, item_id)
            return verdict

        return Exchange("event", self._events_url or "", body, _JSON | attributes | self._authorization, judge)

    def _err(self) -> Exchange:
        mistake = self._rng.choice(MISTAKES)
        return Exchange(
            "mistake",
            self._url,
            mistake.body,
            {**mistake.headers, **self._authorization},
            lambda answer: judge_refusal(answer, status=mistake.status, code=mistake.code),
        )
