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

The module imports httpx and msgspec, and nothing of the functions or the model.
"""

import asyncio
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

import httpx
import msgspec

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
)

__all__ = [
    "AsyncClient", "CallError", "Client", "Condition", "Fault", "NoAnswerError", "OtherServerError", "ProblemError", "RankedItem",
    "RecommendRequest", "Recommendations",
]  # fmt: skip

_DEFAULTS = msgspec.structs.asdict(RecommendRequest())
_SOURCE = "/recsys/client"
_TIMEOUT_S = 2.0
# Time beyond the deadline in which the pipeline's own answer to a missed deadline may arrive.
_GRACE_S = 0.5


class CallError(Exception):
    """A call has no usable answer."""


class NoAnswerError(CallError):
    """The pipeline cannot be reached, or did not answer within the deadline. A retry may succeed."""


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
        retry_after_s: Seconds until a retry is useful, or None.
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
        """Whether a retry may succeed."""
        return self.status in {503, 504}


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


class _Calls:
    """Makes the requests of both clients."""

    def __init__(self, url: str, *, events_url: str | None, token: str | None, timeout_s: float) -> None:
        self._url = url
        self._events_url = events_url
        self._authorization = {"authorization": f"Bearer {token}"} if token else {}
        self._timeout_s = timeout_s

    def ask(self, body: object, *, timeout_s: float | None, strict: bool) -> _Exchange:
        """Return the request to recommend with *body*."""
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        headers = {
            "content-type": "application/json",
            "x-request-timeout-ms": f"{timeout_s * 1000:.0f}",
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
    waits = answer.headers.get("retry-after", "")
    raise ProblemError(
        _decode(answer.content, _Problem, answer),
        retry_after_s=float(waits) if waits.isdecimal() else None,
        request_id=answer.headers.get("x-request-id"),
    )


def _decode(content: bytes, type_: Any, answer: httpx.Response) -> Any:
    try:
        return msgspec.json.decode(content, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise OtherServerError(
            f"{answer.url}: status {answer.status_code}, but the answer does not come from a pipeline; check the URL"
        ) from error


def _unanswered(exchange: _Exchange, error: httpx.TransportError) -> NoAnswerError:
    if isinstance(error, httpx.TimeoutException):
        return NoAnswerError(f"{exchange.url}: no complete answer within {exchange.timeout_s:g} s")
    return NoAnswerError(f"{exchange.url}: {str(error) or type(error).__name__}; check that the pipeline runs")


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
        user_id: str,
        *,
        top_k: int = DEFAULT_TOP_K,
        exclude: Sequence[str] = (),
        conditions: Sequence[Condition] = (),
        diversity: float = 0.0,
        at: datetime | None = None,
        context: Mapping[str, str | float] | None = None,
        strict: bool = False,
        timeout_s: float | None = None,
    ) -> Recommendations:
        """
        Return recommendations for a user, best first.

        Args:
            user_id: The user; an unknown user gets popular items.
            top_k: Number of items, 1 to 100.
            exclude: Items to leave out.
            conditions: Conditions that every item meets.
            diversity: How much items that resemble better ones lose, from 0 (nothing) to 1.
            at: Time to recommend for, with a time zone; None for the present.
            context: The situation of the user, by declared name, such as `{"device": "phone"}`.
            strict: Raise an error instead of returning a degraded answer.
            timeout_s: Time budget of this call.

        Raises:
            ProblemError, NoAnswerError, OtherServerError: see the module.
        """
        fields = (user_id, top_k, list(exclude), list(conditions), diversity)
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
        try:
            return self._http.post(exchange.url, **exchange.keywords())
        except httpx.TransportError as error:
            raise _unanswered(exchange, error) from error

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
        user_id: str,
        *,
        top_k: int = DEFAULT_TOP_K,
        exclude: Sequence[str] = (),
        conditions: Sequence[Condition] = (),
        diversity: float = 0.0,
        at: datetime | None = None,
        context: Mapping[str, str | float] | None = None,
        strict: bool = False,
        timeout_s: float | None = None,
    ) -> Recommendations:
        """Return recommendations for a user; see `Client.recommend`."""
        fields = (user_id, top_k, list(exclude), list(conditions), diversity)
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
        try:
            async with asyncio.timeout(exchange.timeout_s + _GRACE_S):
                return await self._http.post(exchange.url, **exchange.keywords())
        except httpx.TransportError as error:
            raise _unanswered(exchange, error) from error
        except TimeoutError as error:
            raise _unanswered(exchange, httpx.ReadTimeout("")) from error

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
