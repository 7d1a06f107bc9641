"""The client that blocks."""

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Self

import httpx

from recsys.client.answers import checked, read, read_each
from recsys.client.attempts import Exchange, last_answer
from recsys.client.calls import TIMEOUT_S, Calls, Included
from recsys.client.errors import ProblemError
from recsys.contracts.events import InteractionData
from recsys.contracts.wire import DEFAULT_TOP_K, Condition, Recommendations, RecommendRequest, SessionItem


class Client:
    """
    Calls a pipeline and blocks until its answer. Threads may share a client.

    Args:
        url: Address of recommend.
        events_url: Address of the broker that takes interactions; None if the client sends none.
        token: Bearer token to send.
        timeout_s: Time budget of a call that sets none. The pipeline gets the budget and keeps it. If the pipeline
            hangs, connecting, sending and each pause in the answer may take that long.
        transport: Carries the requests; httpx's own if None.
    """

    def __init__(
        self,
        url: str,
        *,
        events_url: str | None = None,
        token: str | None = None,
        timeout_s: float = TIMEOUT_S,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._calls = Calls(url, events_url=events_url, token=token, timeout_s=timeout_s)
        self._http = httpx.Client(transport=transport)

    def recommend(
        self,
        user_id: str = "",
        *,
        top_k: int = DEFAULT_TOP_K,
        exclude: Sequence[str] = (),
        conditions: Sequence[Condition] = (),
        diversity: float = 0.0,
        history: Sequence[SessionItem] = (),
        item_id: str = "",
        include: Sequence[Included] = (),
        at: datetime | None = None,
        context: Mapping[str, str | float] | None = None,
        strict: bool = False,
        timeout_s: float | None = None,
    ) -> Recommendations:
        """
        Return recommendations for a user, a session or an item, best first.

        Args:
            user_id: The user; an unknown user gets popular items. Not needed with *history* or *item_id*.
            top_k: Number of items, 1 to 100.
            exclude: Items to leave out.
            conditions: Conditions that every item meets.
            diversity: How much items that resemble better ones lose, from 0 (nothing) to 1.
            history: Items of the session, which are newer than the stored history of the user.
            item_id: Recommend what resembles this item.
            include: Further fields of the answer: of each item its title, attributes and reason.
            at: Time to recommend for, with a time zone; None for the present.
            context: The situation of the user, by declared name, such as `{"device": "phone"}`.
            strict: Raise an error instead of returning a degraded answer.
            timeout_s: Time budget of this call.

        Raises:
            ProblemError, NoAnswerError, OtherServerError: see the module.
        """
        fields = (user_id, top_k, list(exclude), list(conditions), diversity, list(history), item_id, list(include))
        request = RecommendRequest(*fields, at=at, context=dict(context or {}))
        return read(self._post(self._calls.recommend(request, timeout_s=timeout_s, strict=strict)))

    def recommend_many(
        self, requests: Iterable[RecommendRequest], *, strict: bool = False, timeout_s: float | None = None
    ) -> list[Recommendations | ProblemError]:
        """
        Return the answer or the problem of each request, in their order; sends 256 requests a call.

        Raises:
            ProblemError, NoAnswerError, OtherServerError: a call failed as a whole; see the module.
        """
        exchanges = self._calls.recommend_many(requests, timeout_s=timeout_s, strict=strict)
        return [result for exchange in exchanges for result in read_each(self._post(exchange))]

    def send_interaction(
        self,
        user_id: str,
        kind: str,
        item_id: str | None = None,
        *,
        duration_s: float | None = None,
        event_id: str | None = None,
        exposure_id: str | None = None,
    ) -> None:
        """
        Hand an interaction to the broker. A repeated call with the same *event_id* is counted once.

        *exposure_id* is that of the recommendations that led to it, if any.

        Raises:
            ProblemError, NoAnswerError, OtherServerError: the broker did not take the event.
            ValueError: the client has no URL for events.
        """
        data = InteractionData(user_id, kind, item_id, duration_s, exposure_id=exposure_id)
        checked(self._post(self._calls.interaction(data, event_id)))

    def update_user(
        self, user_id: str, attributes: Mapping[str, Sequence[str]], *, event_id: str | None = None
    ) -> None:
        """
        Hand new values of declared attributes of a user to the broker; an attribute without values is removed.

        The user's other attributes stay. The time of the call decides which of two values is newer.

        Raises:
            ProblemError, NoAnswerError, OtherServerError: the broker did not take the event.
            ValueError: the client has no URL for events.
        """
        checked(self._post(self._calls.update(user_id, attributes, event_id)))

    def _post(self, exchange: Exchange) -> httpx.Response:
        attempts = self._calls.attempts(exchange)
        while True:
            outcome = self._attempt(attempts.next())
            pause_s = attempts.pause_s(outcome)
            if pause_s is None:
                return last_answer(exchange, outcome)
            time.sleep(pause_s)

    def _attempt(self, exchange: Exchange) -> httpx.Response | httpx.TransportError:
        try:
            return self._http.post(exchange.url, **exchange.keywords())
        except httpx.TransportError as error:
            return error

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
