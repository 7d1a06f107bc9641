"""The client for asyncio."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Self

import httpx

from recsys.client.answers import checked, read, read_each
from recsys.client.attempts import GRACE_S, Exchange, last_answer
from recsys.client.calls import TIMEOUT_S, Calls, Included
from recsys.client.errors import ProblemError
from recsys.contracts.events import InteractionData
from recsys.contracts.wire import DEFAULT_TOP_K, Condition, Recommendations, RecommendRequest, SessionItem


class AsyncClient:
    """
    Calls a pipeline from asyncio. The arguments, answers and errors are those of `Client`.

    A call ends half a second after its time budget at the latest.
    """

    def __init__(
        self,
        url: str,
        *,
        events_url: str | None = None,
        token: str | None = None,
        timeout_s: float = TIMEOUT_S,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._calls = Calls(url, events_url=events_url, token=token, timeout_s=timeout_s)
        self._http = httpx.AsyncClient(transport=transport)

    async def recommend(
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
        """Return recommendations for a user; see `Client.recommend`."""
        fields = (user_id, top_k, list(exclude), list(conditions), diversity, list(history), item_id, list(include))
        request = RecommendRequest(*fields, at=at, context=dict(context or {}))
        return read(await self._post(self._calls.recommend(request, timeout_s=timeout_s, strict=strict)))

    async def recommend_many(
        self, requests: Iterable[RecommendRequest], *, strict: bool = False, timeout_s: float | None = None
    ) -> list[Recommendations | ProblemError]:
        """Return the answer or the problem of each request; see `Client.recommend_many`."""
        exchanges = self._calls.recommend_many(requests, timeout_s=timeout_s, strict=strict)
        return [result for exchange in exchanges for result in read_each(await self._post(exchange))]

    async def send_interaction(
        self,
        user_id: str,
        kind: str,
        item_id: str | None = None,
        *,
        duration_s: float | None = None,
        event_id: str | None = None,
        exposure_id: str | None = None,
    ) -> None:
        """Hand an interaction to the broker; see `Client.send_interaction`."""
        data = InteractionData(user_id, kind, item_id, duration_s, exposure_id=exposure_id)
        checked(await self._post(self._calls.interaction(data, event_id)))

    async def update_user(
        self, user_id: str, attributes: Mapping[str, Sequence[str]], *, event_id: str | None = None
    ) -> None:
        """Hand new values of attributes to the broker; see `Client.update_user`."""
        checked(await self._post(self._calls.update(user_id, attributes, event_id)))

    async def _post(self, exchange: Exchange) -> httpx.Response:
        attempts = self._calls.attempts(exchange)
        while True:
            outcome = await self._attempt(attempts.next())
            pause_s = attempts.pause_s(outcome)
            if pause_s is None:
                return last_answer(exchange, outcome)
            await asyncio.sleep(pause_s)

    async def _attempt(self, exchange: Exchange) -> httpx.Response | httpx.TransportError:
        try:
            async with asyncio.timeout(exchange.timeout_s + GRACE_S):
                return await self._http.post(exchange.url, **exchange.keywords())
        except httpx.TransportError as error:
            return error
        except TimeoutError:
            return httpx.ReadTimeout("")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
