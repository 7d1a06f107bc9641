"""The requests of both clients."""

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from chassis.hop.retries import RetryBudget
from chassis.wire import cloudevents
from chassis.wire.cloudevents import CloudEvent
from recsys.client.attempts import Attempts, Exchange, budget_header
from recsys.contracts.events import INTERACTION, USER_UPDATED, AttributeValues, InteractionData, UserUpdatedData
from recsys.contracts.wire import MAX_BATCH, RecommendRequest

Included = Literal["title", "attributes", "reason", "exposure"]
"""Fields of an answer that callers can ask for."""

_DEFAULTS = msgspec.structs.asdict(RecommendRequest())
_SOURCE = "/recsys/client"
TIMEOUT_S = 2.0


class Calls:
    """Makes the requests of both clients."""

    def __init__(self, url: str, *, events_url: str | None, token: str | None, timeout_s: float) -> None:
        self._url = url
        self._events_url = events_url
        self._authorization = {"authorization": f"Bearer {token}"} if token else {}
        self._timeout_s = timeout_s
        self._budget = RetryBudget()

    def attempts(self, exchange: Exchange) -> Attempts:
        """Return the attempts of a call."""
        return Attempts(exchange, self._budget)

    def recommend(self, request: RecommendRequest, *, timeout_s: float | None, strict: bool) -> Exchange:
        """Return the request to recommend with the fields of *request*."""
        return self._ask(_sent(request), timeout_s=timeout_s, strict=strict)

    def recommend_many(
        self, requests: Iterable[RecommendRequest], *, timeout_s: float | None, strict: bool
    ) -> Iterator[Exchange]:
        """Return requests to recommend, each with as many of *requests* as a body may hold."""
        given = [_sent(request) for request in requests]
        for start in range(0, len(given), MAX_BATCH):
            yield self._ask({"requests": given[start : start + MAX_BATCH]}, timeout_s=timeout_s, strict=strict)

    def interaction(self, data: InteractionData, event_id: str | None) -> Exchange:
        """Return the request that hands an interaction to the broker; raises ValueError without a URL for events."""
        return self._tell(INTERACTION, data, event_id)

    def update(self, user_id: str, attributes: Mapping[str, Sequence[str]], event_id: str | None) -> Exchange:
        """Return the request that hands new values to the broker; raises ValueError without a URL for events."""
        given = [AttributeValues(name, list(values)) for name, values in attributes.items()]
        return self._tell(USER_UPDATED, UserUpdatedData(user_id, given), event_id)

    def _ask(self, body: object, *, timeout_s: float | None, strict: bool) -> Exchange:
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        headers = {
            "content-type": "application/json",
            **budget_header(timeout_s),
            **self._authorization,
            **({"prefer": "handling=strict"} if strict else {}),
        }
        return Exchange(self._url, headers, msgspec.json.encode(body), timeout_s)

    def _tell(self, type_: str, data: InteractionData | UserUpdatedData, event_id: str | None) -> Exchange:
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
        return Exchange(self._events_url, headers | self._authorization, event.data, self._timeout_s)


def _sent(request: RecommendRequest) -> dict[str, Any]:
    """Return the fields of *request* to send. A pipeline of an earlier version refuses fields that it does not know."""
    values = msgspec.structs.asdict(request)
    return {name: value for name, value in values.items() if value != _DEFAULTS[name]}
