"""
Call a pipeline from Python, blocking or with asyncio.

    with Client("http://127.0.0.1:8080") as pipeline:
        for item in pipeline.recommend("user_42", top_k=10).recommendations:
            print(item.item_id, item.score)

The errors of a call:

    CallError
     ├─ ProblemError       the pipeline refused or failed; has the fields of the problem document
     ├─ NoAnswerError      no connection, or no complete answer within the deadline
     └─ OtherServerError   the answer does not come from a pipeline: check the URL

Both clients try a call again within its time budget if the connection broke, or if a gateway answered 502 or 503. That
is safe: recommend only reads, and the broker's subscribers count an event once.

The module imports httpx and msgspec, and nothing of the functions or the model.
"""

import asyncio
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, Self

import httpx
import msgspec

from chassis.hop.retries import RetryBudget, RetryPolicy
from chassis.wire import cloudevents
from chassis.wire.cloudevents import CloudEvent
from chassis.wire.problems import Fault
from recsys.contracts.events import INTERACTION, USER_UPDATED, AttributeValues, InteractionData, UserUpdatedData
from recsys.contracts.wire import (
    DEFAULT_TOP_K,
    MAX_BATCH,
    BatchAnswer,
    Condition,
    RankedItem,
    Recommendations,
    RecommendRequest,
    SessionItem,
)

__all__ = [
    "AsyncClient", "CallError", "Client", "Condition", "Fault", "NoAnswerError", "OtherServerError", "ProblemError", "RankedItem",
    "RecommendRequest", "Recommendations", "SessionItem",
]  # fmt: skip

Included = Literal["title", "attributes", "reason", "exposure"]
"""Fields of an answer that callers can ask for."""

_DEFAULTS = msgspec.structs.asdict(RecommendRequest())
_SOURCE = "/recsys/client"
_TIMEOUT_S = 2.0
# Time beyond the deadline in which the pipeline's own answer to a missed deadline may arrive.
_GRACE_S = 0.5
_RETRYABLE_STATUS = frozenset({502, 503})
# Kubernetes takes a crashed pod out of service within a second or two, so the pauses add up to most of a second.
_RETRIES = RetryPolicy(attempts=6, base_s=0.025)


class CallError(Exception):
    """A call has no usable answer."""


class NoAnswerError(CallError):
    """The pipeline cannot be reached, or did not answer within the deadline. A later call may succeed."""


class OtherServerError(CallError):
    """The answer does not come from a pipeline: the URL names another server."""


class ProblemError(CallError):
    """
    The pipeline refused the request, or failed.

    Attributes:
        status: HTTP status.
        code: Kind of the problem, such as "invalid-request" or "overloaded".
        title: The kind in words.
        detail: A sentence about this request, or None.
        faults: The faults of the request.
        retry_after_s: Seconds until another call is useful, or None.
        request_id: Identifies the request in the pipeline's logs, or None.
    """

    def __init__(self, problem: "_Problem", *, retry_after_s: float | None, request_id: str | None) -> None:
        faults = "; ".join(f"{fault.path} {fault.detail}" for fault in problem.errors)
        super().__init__(f"{problem.status} {problem.code}: {faults or problem.detail or problem.title}")
        self.status, self.code, self.title, self.detail = problem.status, problem.code, problem.title, problem.detail
        self.faults = problem.errors
        self.retry_after_s = retry_after_s
        self.request_id = request_id

    @property
    def retryable(self) -> bool:
        """Whether a later call may succeed."""
        return self.status in {502, 503, 504}


class _Problem(msgspec.Struct, frozen=True):
    status: int
    code: str
    title: str
    detail: str | None = None
    errors: tuple[Fault, ...] = ()


class _Failed(msgspec.Struct, frozen=True):
    error: _Problem


@dataclass(frozen=True)
class _Exchange:
    """A request, and how long its answer may take."""

    url: str
    headers: dict[str, str]
    body: bytes
    timeout_s: float

    def keywords(self) -> dict[str, Any]:
        """Return the arguments of httpx's `post`."""
        return {"headers": self.headers, "content": self.body, "timeout": self.timeout_s + _GRACE_S}

    def within(self, left_s: float) -> "_Exchange":
        """Return the same request with *left_s* for its answer."""
        return replace(self, headers=self.headers | _budget(left_s), timeout_s=left_s)


class _Tries:
    """The attempts of a call, all of which share its time budget."""

    def __init__(self, exchange: _Exchange, budget: RetryBudget) -> None:
        self._exchange = exchange
        self._budget = budget
        self._ends = time.monotonic() + exchange.timeout_s
        self._made = 0
        budget.earn()

    def next(self) -> _Exchange:
        """Return the request of the next attempt."""
        self._made += 1
        return self._exchange.within(self._ends - time.monotonic()) if self._made > 1 else self._exchange

    def pause_s(self, outcome: httpx.Response | httpx.TransportError) -> float | None:
        """Return how long to wait before the next attempt; None if *outcome* is final."""
        retry_after_s = None
        if isinstance(outcome, httpx.Response):
            if outcome.status_code not in _RETRYABLE_STATUS:
                return None
            retry_after_s = _retry_after_s(outcome)
        elif isinstance(outcome, httpx.TimeoutException):
            return None
        left_s = self._ends - time.monotonic()
        pause_s = _RETRIES.pause_s(self._made, left_s=left_s, retry_after_s=retry_after_s)
        return pause_s if pause_s is not None and self._budget.spend() else None


def _budget(timeout_s: float) -> dict[str, str]:
    return {"x-request-timeout-ms": f"{timeout_s * 1000:.0f}"}


def _retry_after_s(answer: httpx.Response) -> float | None:
    waits = answer.headers.get("retry-after", "")
    return float(waits) if waits.isdecimal() else None


class _Calls:
    """Makes the requests of both clients."""

    def __init__(self, url: str, *, events_url: str | None, token: str | None, timeout_s: float) -> None:
        self._url = url
        self._events_url = events_url
        self._authorization = {"authorization": f"Bearer {token}"} if token else {}
        self._timeout_s = timeout_s
        self._budget = RetryBudget()

    def tries(self, exchange: _Exchange) -> _Tries:
        """Return the attempts of a call."""
        return _Tries(exchange, self._budget)

    def ask(self, body: object, *, timeout_s: float | None, strict: bool) -> _Exchange:
        """Return the request to recommend with *body*."""
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        headers = {
            "content-type": "application/json",
            **_budget(timeout_s),
            **self._authorization,
            **({"prefer": "handling=strict"} if strict else {}),
        }
        return _Exchange(self._url, headers, msgspec.json.encode(body), timeout_s)

    def tell(self, type_: str, data: InteractionData | UserUpdatedData, event_id: str | None) -> _Exchange:
        """
        Return the request that hands an event with *data* to the broker.

        Raises:
            ValueError: the client has no URL for events.
        """
        if self._events_url is None:
            raise ValueError("this client has no events_url; give the URL of the broker to send events")
        event = CloudEvent(
            id=event_id or str(uuid.uuid4()),
            source=_SOURCE,
            type=type_,
            subject=data.user_id,
            time=datetime.now(UTC),
            data=msgspec.json.encode(
                {name: value for name, value in msgspec.to_builtins(data).items() if value is not None}
            ),
        )
        headers = {name.decode(): value.decode() for name, value in cloudevents.write_binary(event)}
        return _Exchange(self._events_url, headers | self._authorization, event.data, self._timeout_s)


def _update(user_id: str, attributes: Mapping[str, Sequence[str]]) -> UserUpdatedData:
    return UserUpdatedData(user_id, [AttributeValues(name, list(values)) for name, values in attributes.items()])


def _sent(request: RecommendRequest) -> dict[str, Any]:
    """Return the fields of *request* to send. A pipeline of an earlier version refuses fields that it does not know."""
    values = msgspec.structs.asdict(request)
    return {name: value for name, value in values.items() if value != _DEFAULTS[name]}


def _batches(requests: Iterable[RecommendRequest]) -> Iterator[Sequence[RecommendRequest]]:
    given = list(requests)
    yield from (given[start : start + MAX_BATCH] for start in range(0, len(given), MAX_BATCH))


def _read(answer: httpx.Response) -> Recommendations:
    found: Recommendations = _decode(_checked(answer).content, Recommendations, answer)
    return msgspec.structs.replace(found, exposure_id=answer.headers.get("recsys-exposure", found.exposure_id))


def _read_each(answer: httpx.Response) -> list[Recommendations | ProblemError]:
    return [_read_result(each, answer) for each in _decode(_checked(answer).content, BatchAnswer, answer).results]


def _read_result(content: msgspec.Raw, answer: httpx.Response) -> Recommendations | ProblemError:
    try:
        return msgspec.json.decode(content, type=Recommendations)
    except msgspec.ValidationError:
        failed = _decode(bytes(content), _Failed, answer)
    return ProblemError(failed.error, retry_after_s=None, request_id=answer.headers.get("x-request-id"))


def _checked(answer: httpx.Response) -> httpx.Response:
    """Return *answer*, or raise the problem that it holds."""
    if answer.is_success:
        return answer
    raise ProblemError(
        _decode(answer.content, _Problem, answer),
        retry_after_s=_retry_after_s(answer),
        request_id=answer.headers.get("x-request-id"),
    )


def _decode(content: bytes, type_: Any, answer: httpx.Response) -> Any:
    try:
        return msgspec.json.decode(content, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise OtherServerError(
            f"{answer.url}: status {answer.status_code}, but the answer does not come from a pipeline; check the URL"
        ) from error


def _answered(exchange: _Exchange, outcome: httpx.Response | httpx.TransportError) -> httpx.Response:
    """Return the answer of the last attempt, or raise its error."""
    if isinstance(outcome, httpx.Response):
        return outcome
    if isinstance(outcome, httpx.TimeoutException):
        raise NoAnswerError(f"{exchange.url}: no complete answer within {exchange.timeout_s:g} s") from outcome
    raise NoAnswerError(
        f"{exchange.url}: {str(outcome) or type(outcome).__name__}; check that the pipeline runs"
    ) from outcome


class Client:
    """
    Calls a pipeline and blocks until its answer. Threads may share a client.

    Args:
        url: Address of recommend.
        events_url: Address of the broker that takes interactions; None if the client sends none.
        token: Bearer token to send.
        timeout_s: Time budget of a call that sets none, which the pipeline keeps to as well. If the pipeline itself
            hangs, connecting, sending and each pause in the answer may take that long.
        transport: Carries the requests; httpx's own if None.
    """

    def __init__(
        self,
        url: str,
        *,
        events_url: str | None = None,
        token: str | None = None,
        timeout_s: float = _TIMEOUT_S,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._calls = _Calls(url, events_url=events_url, token=token, timeout_s=timeout_s)
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
        return _read(self._post(self._calls.ask(_sent(request), timeout_s=timeout_s, strict=strict)))

    def recommend_many(
        self, requests: Iterable[RecommendRequest], *, strict: bool = False, timeout_s: float | None = None
    ) -> list[Recommendations | ProblemError]:
        """
        Return the answer or the problem of each request, in their order; sends 256 requests a call.

        Raises:
            ProblemError, NoAnswerError, OtherServerError: a call failed as a whole; see the module.
        """
        results: list[Recommendations | ProblemError] = []
        for batch in _batches(requests):
            results += _read_each(
                self._post(self._calls.ask({"requests": [*map(_sent, batch)]}, timeout_s=timeout_s, strict=strict))
            )
        return results

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
        _checked(self._post(self._calls.tell(INTERACTION, data, event_id)))

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
        _checked(self._post(self._calls.tell(USER_UPDATED, _update(user_id, attributes), event_id)))

    def _post(self, exchange: _Exchange) -> httpx.Response:
        tries = self._calls.tries(exchange)
        while True:
            outcome = self._attempt(tries.next())
            pause_s = tries.pause_s(outcome)
            if pause_s is None:
                return _answered(exchange, outcome)
            time.sleep(pause_s)

    def _attempt(self, exchange: _Exchange) -> httpx.Response | httpx.TransportError:
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
        timeout_s: float = _TIMEOUT_S,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._calls = _Calls(url, events_url=events_url, token=token, timeout_s=timeout_s)
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
        return _read(await self._post(self._calls.ask(_sent(request), timeout_s=timeout_s, strict=strict)))

    async def recommend_many(
        self, requests: Iterable[RecommendRequest], *, strict: bool = False, timeout_s: float | None = None
    ) -> list[Recommendations | ProblemError]:
        """Return the answer or the problem of each request; see `Client.recommend_many`."""
        results: list[Recommendations | ProblemError] = []
        for batch in _batches(requests):
            ask = self._calls.ask({"requests": [*map(_sent, batch)]}, timeout_s=timeout_s, strict=strict)
            results += _read_each(await self._post(ask))
        return results

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
        _checked(await self._post(self._calls.tell(INTERACTION, data, event_id)))

    async def update_user(
        self, user_id: str, attributes: Mapping[str, Sequence[str]], *, event_id: str | None = None
    ) -> None:
        """Hand new values of attributes to the broker; see `Client.update_user`."""
        _checked(await self._post(self._calls.tell(USER_UPDATED, _update(user_id, attributes), event_id)))

    async def _post(self, exchange: _Exchange) -> httpx.Response:
        tries = self._calls.tries(exchange)
        while True:
            outcome = await self._attempt(tries.next())
            pause_s = tries.pause_s(outcome)
            if pause_s is None:
                return _answered(exchange, outcome)
            await asyncio.sleep(pause_s)

    async def _attempt(self, exchange: _Exchange) -> httpx.Response | httpx.TransportError:
        try:
            async with asyncio.timeout(exchange.timeout_s + _GRACE_S):
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
