"""Events about attributes of users: extract_features checks them by the declaration and answers with the values."""

import json
from typing import Any

import msgspec
import pytest

from chassis.wire.cloudevents import CloudEvent
from chassis.wire.problems import DependencyError, InvalidRequestError
from functions.extract_features.handler import ExtractFeatures
from functions.extract_features.user_updates import read_update
from recstore.memory import MemoryStore
from recstore.port import EventOutcome, StoreUnavailableError
from recsys.contracts import events
from recsys.declaration.reader import parse_declaration
from recsys.features import UNKNOWN_FEATURES
from recsys.records import HistoryItem, UserRecord
from tests.functions.harness import make_call

SHOP = parse_declaration(
    """
    [events.view]
    weight = 1
    [users.attributes]
    age_group = { kind = "categorical" }
    city = { kind = "categorical" }
    sizes = { kind = "multi-valued" }
    spent = { kind = "number" }
    since = { kind = "time" }
    """,
    "shop.toml",
)
ANN = UserRecord("ann", "25-34", history=[HistoryItem("a", 1.0, 300)])


def event(data: object, *, time: str = "2026-01-01T00:00:00Z") -> Any:
    headers = {
        "ce-specversion": "1.0", "ce-id": "1", "ce-source": "/crm", "ce-type": events.USER_UPDATED, "ce-time": time,
    }  # fmt: skip
    return make_call(
        data,
        seconds=30,
        headers=[(name.encode(), text.encode()) for name, text in headers.items()],
    )


def told(**values: list[str]) -> dict[str, object]:
    return {"user_id": "ann", "attributes": [{"attribute": name, "values": each} for name, each in values.items()]}


async def serve(store: MemoryStore) -> ExtractFeatures:
    await store.replace([ANN], population=UNKNOWN_FEATURES)
    return ExtractFeatures(store, population=UNKNOWN_FEATURES, history_limit=10, declaration=SHOP)


async def ask(handler: ExtractFeatures) -> dict[str, Any]:
    reply = await handler(make_call({"user_id": "ann"}, seconds=30))
    answer: dict[str, Any] = msgspec.json.decode(reply.body)
    return answer


async def test_the_next_answer_has_the_values():
    """Numbers and times have the form of an import; the age group stays a feature."""
    handler = await serve(MemoryStore())
    assert "attributes" not in await ask(handler)
    values = told(city=["Bern"], sizes=["M", "L"], spent=["1e1"], since=["2026-01-01T00:00:00Z"], age_group=["55+"])
    reply = await handler(event(values))
    assert (reply.status, reply.body) == (202, b"")
    answer = await ask(handler)
    assert answer["features"]["age_group"] == "55+"
    assert answer["attributes"] == {
        "city": ["Bern"], "sizes": ["M", "L"], "since": ["1767225600.0"], "spent": ["10.0"],
    }  # fmt: skip
    assert handler.ingest.outcomes[EventOutcome.ACCEPTED] == 1


async def test_the_time_of_the_event_decides():
    """An event that is delivered late or again changes nothing."""
    handler = await serve(MemoryStore())
    await handler(event(told(city=["Bern"])))
    await handler(event(told(city=["Rom"]), time="2025-12-31T00:00:00Z"))
    await handler(event(told(city=["Bern"])))
    assert (await ask(handler))["attributes"] == {"city": ["Bern"]}
    assert handler.ingest.outcomes[EventOutcome.REPEATED] == 2


async def test_a_sequence_passes_the_values_on():
    """The reply to `recommendation.requested.v1` has the attributes for rank_items."""
    handler = await serve(MemoryStore())
    await handler(event(told(city=["Bern"])))
    headers = [(b"ce-specversion", b"1.0"), (b"ce-id", b"2"), (b"ce-source", b"/s"),
               (b"ce-type", events.REQUESTED.encode())]  # fmt: skip
    reply = await handler(make_call({"user_id": "ann"}, seconds=30, headers=headers))
    assert events.extracted.decode(reply.body).user_attributes == {"city": ["Bern"]}


@pytest.mark.parametrize(
    ("data", "path", "detail"),
    [
        ({"user_id": "ann"}, "$.attributes", "is missing"),
        (told(), "$.attributes", "must not be empty"),
        (told(town=["Bern"]), "$.attributes[0].attribute", "declared are: age_group, city, sizes, spent, since"),
        (told(city=["Bern", "Rom"]), "$.attributes[0].values", "must be one categorical, not 2"),
        (told(sizes=["M"], spent=["much"]), "$.attributes[1].values", "spent must be a number"),
        (told(since=["31/12/2026"]), "$.attributes[0].values", "since"),
        (told(age_group=["old"]), "$.attributes[0].values", "must be one of under-18, "),
        ({**told(city=["Bern"]), "age": 3}, "$.age", "is not a known field"),
    ],
)
def test_malformed_updates_are_refused(data, path, detail):
    """The fault names the place and the declared attributes."""
    malformed = CloudEvent(id="1", source="/crm", type=events.USER_UPDATED, data=json.dumps(data).encode())
    with pytest.raises(InvalidRequestError) as caught:
        read_update(malformed, attributes=SHOP.users.attributes)
    (fault,) = caught.value.faults
    assert fault.path == path
    assert detail in fault.detail


async def test_a_refused_update_is_counted_and_changes_nothing():
    """The metric of events shows it as rejected."""
    handler = await serve(MemoryStore())
    with pytest.raises(InvalidRequestError):
        await handler(event(told(town=["Bern"])))
    assert handler.ingest.rejected == 1
    assert "attributes" not in await ask(handler)


async def test_the_sender_sends_again_while_the_store_is_unavailable():
    """The event gets 503."""
    store = MemoryStore()
    handler = await serve(store)
    await store.aclose()
    with pytest.raises(DependencyError) as caught:
        await handler(event(told(city=["Bern"])))
    assert isinstance(caught.value.__cause__, StoreUnavailableError)
    assert caught.value.retry_after_s == 1.0
