"""The three functions as receivers of events."""

import asyncio
import json
import time
from collections.abc import Sequence

import msgspec
import pytest

from chassis.call import Call, Reply
from chassis.server.events import EventRoute, EventRouter
from chassis.telemetry.tracing import PassOn
from chassis.wire.cloudevents import CloudEvent, read_events
from chassis.wire.problems import DependencyError, InvalidRequestError, NotJsonError
from functions.extract_features.handler import ExtractFeatures
from functions.extract_features.ingest import read_interaction
from recstore.memory import MemoryStore
from recstore.port import EventOutcome, StoreUnavailableError
from recsys.contracts import events
from recsys.declaration.reader import default_declaration
from recsys.features import UNKNOWN_FEATURES
from recsys.records import Interaction, KnownUser, UserRecord
from tests.functions.harness import event_call, make_call


def event(data: object, type_: str = events.INTERACTION, **changes: object) -> CloudEvent:
    body = data if isinstance(data, bytes) else json.dumps(data).encode()
    fields: dict[str, object] = {"id": "1", "source": "/shop", "type": type_, "data": body, **changes}
    return CloudEvent(**fields)  # type: ignore[arg-type]


def reply_event(reply: Reply) -> CloudEvent:
    (read,) = read_events([(b"content-type", reply.content_type), *reply.headers], reply.body)
    return read


KINDS = default_declaration().events
VIEW = {"user_id": "zoe", "kind": "view", "item_id": "item_1", "time": "2026-01-01T00:00:00Z"}


class TestInteraction:
    """extract_features receives `interaction.v1`."""

    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()

    @pytest.fixture
    def handler(self, store: MemoryStore) -> ExtractFeatures:
        return ExtractFeatures(store, population=UNKNOWN_FEATURES, history_limit=10)

    async def test_an_interaction_is_applied_and_acknowledged(self, handler):
        """An accepted event gets an empty 202, and its effect is visible as soon as the answer arrives."""
        reply = await handler(event_call(event(VIEW)))
        assert (reply.status, reply.body) == (202, b"")
        answer = json.loads((await handler(make_call({"user_id": "zoe"}))).body)
        assert answer["history"] == ["item_1"]
        assert answer["as_of"] == "2026-01-01T00:00:00Z"

    async def test_a_repeated_event_is_acknowledged(self, handler):
        """A repeated delivery gets the same answer as the first and changes nothing."""
        for _ in range(3):
            assert (await handler(event_call(event(VIEW)))).status == 202
        assert handler.ingest.outcomes == {EventOutcome.ACCEPTED: 1, EventOutcome.REPEATED: 2}

    async def test_batches_are_all_or_nothing(self, handler, turns):
        """If one event of a batch is malformed, none is applied."""
        good = [event({**VIEW, "item_id": f"i{n}"}, id=str(n)) for n in range(5)]
        assert (await handler(event_call(*good))).status == 202
        assert handler.ingest.outcomes[EventOutcome.ACCEPTED] == 5
        with pytest.raises(InvalidRequestError) as caught:
            await handler(
                event_call(
                    event(VIEW, id="new"),
                    event(VIEW, type_="other", id="bad"),
                    event({**VIEW, "kind": "stare"}, id="worse"),
                    event(b"", id="empty"),
                )
            )
        assert [fault.path for fault in caught.value.faults] == ["$[1].type", "$[2].data.kind", "$[3].data"]
        await turns()
        assert handler.ingest.outcomes[EventOutcome.ACCEPTED] == 5

    async def test_simultaneous_events_share_a_transaction(self):
        """Events that arrive while a transaction runs are applied together in the next one."""
        groups: list[int] = []

        class Counting(MemoryStore):
            async def apply(self, interactions: Sequence[Interaction]) -> list[EventOutcome]:
                groups.append(len(interactions))
                return await super().apply(interactions)

        handler = ExtractFeatures(Counting(), population=UNKNOWN_FEATURES, history_limit=10)
        await handler(event_call(*(event(VIEW, id=str(n)) for n in range(40))))
        assert groups == [40]

    async def test_a_batch_is_answered_after_all_its_events_ended(self):
        """When one event of a batch fails, the handler still waits for the others before it answers."""

        class Half(MemoryStore):
            async def read(self, user_ids: Sequence[str], *, history: int) -> list[KnownUser | None]:
                if user_ids == ["bad"]:
                    raise StoreUnavailableError
                for _ in range(10):
                    await asyncio.sleep(0)
                done.extend(user_ids)
                return await super().read(user_ids, history=history)

        done: list[str] = []
        handler = ExtractFeatures(Half(), population=UNKNOWN_FEATURES, history_limit=10)
        requests = [event({"user_id": user}, type_=events.REQUESTED, id=user) for user in ("a", "bad", "b")]
        with pytest.raises(DependencyError):
            await handler(event_call(*requests))
        assert done == ["a", "b"]

    async def test_the_error_of_a_batch_lets_no_event_get_lost(self):
        """A broker sends a batch again if a retry may help one of its events, and the log gets a crash."""
        errors = {"a": InvalidRequestError(), "b": DependencyError(), "c": RuntimeError("a bug")}

        async def fail(name: str, _event: CloudEvent, _call: Call) -> None:
            raise errors[name]

        router = EventRouter({events.INTERACTION: EventRoute(lambda received: received.id, fail)})
        for ids, raised in (("ab", DependencyError), ("abc", RuntimeError), ("ba", DependencyError)):
            with pytest.raises(raised):
                await router(event_call(*(event(VIEW, id=each) for each in ids)))

    async def test_an_unavailable_store_is_a_503(self):
        """An unavailable store is a retryable error that does not reveal the store's address."""

        class Unavailable(MemoryStore):
            async def apply(self, interactions: Sequence[Interaction]) -> list[EventOutcome]:
                raise StoreUnavailableError("secret://host")

        with pytest.raises(DependencyError) as caught:
            await ExtractFeatures(Unavailable(), population=UNKNOWN_FEATURES, history_limit=1)(event_call(event(VIEW)))
        assert "secret" not in str(caught.value.problem())

    async def test_a_reply_carries_the_new_features(self, store):
        """With replies enabled, the answer is an event with the features after the interaction."""
        handler = ExtractFeatures(store, population=UNKNOWN_FEATURES, history_limit=10, reply_to_interactions=True)
        reply = reply_event(await handler(event_call(event(VIEW, extensions={"traceparent": "00-1"}))))
        assert (reply.type, reply.subject) == (events.UPDATED, "zoe")
        assert json.loads(reply.data)["history"] == ["item_1"]
        assert reply.extensions == {"causationid": "1", "correlationid": "1", "traceparent": "00-1"}
        again = reply_event(await handler(event_call(event(VIEW))))
        assert again.id == reply.id

    @pytest.mark.parametrize("type_", ["dev.recsys.interaction.v2", "x", events.EXTRACTED])
    async def test_unknown_event_types_are_refused(self, handler, type_):
        """The handler refuses an event whose type it does not support."""
        with pytest.raises(InvalidRequestError) as caught:
            await handler(event_call(event(VIEW, type_=type_)))
        assert caught.value.faults[0].path == "type"

    @pytest.mark.parametrize(
        ("data", "paths"),
        [
            ({}, ["$.user_id", "$.kind"]),
            ({**VIEW, "kind": "stare"}, ["$.kind"]),
            ({**VIEW, "user_id": 5, "item_id": ""}, ["$.user_id", "$.item_id"]),
            ({"user_id": "a", "kind": "purchase"}, ["$.item_id"]),
            ({**VIEW, "time": "noon"}, ["$.time"]),
            ({**VIEW, "time": "1969-12-31T00:00:00Z"}, ["$.time"]),
            ({**VIEW, "kind": "session_end", "duration_s": -1}, ["$.duration_s"]),
            ({**VIEW, "kind": "session_end", "duration_s": 1e9}, ["$.duration_s"]),
            ({**VIEW, "mood": "good"}, ["$.mood"]),
            ([], ["$"]),
        ],
    )
    def test_invalid_data_is_refused_with_every_fault(self, data, paths):
        """The handler checks event data as strictly as a request body and names every fault."""
        with pytest.raises(InvalidRequestError) as caught:
            read_interaction(event(data), kinds=KINDS)
        assert [fault.path for fault in caught.value.faults] == paths

    def test_data_that_is_not_json_is_refused(self):
        """Empty or malformed data raises NotJsonError."""
        for data in (b"", b"{", b"\xff"):
            with pytest.raises(NotJsonError):
                read_interaction(event(data), kinds=KINDS)

    def test_the_time_comes_from_the_data_or_the_event(self):
        """The time comes from the data, else from the event, else from the clock; the end of a session has no item."""
        told = CloudEvent("1", "/s", events.INTERACTION, data=json.dumps(VIEW).encode())
        assert read_interaction(told, kinds=KINDS).time_us == 1_767_225_600_000_000
        (timed,) = read_events(
            [(b"content-type", b"application/cloudevents+json")],
            json.dumps(
                {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "time": "2026-01-01T01:00:00+01:00",
                 "data": {"user_id": "a", "kind": "session_end", "item_id": "x", "duration_s": 61.5}}
            ).encode(),
        )  # fmt: skip
        assert read_interaction(timed, kinds=KINDS) == Interaction(
            "/s", "1", "a", "session_end", 1_767_225_600_000_000, None, 61_500, weight=0.0, counter="sessions"
        )
        now = read_interaction(event({"user_id": "a", "kind": "session_end"}), kinds=KINDS)
        assert now.time_us > 1_767_225_600_000_000

    def test_a_time_in_the_future_counts_as_the_present(self):
        """One device whose clock is ahead cannot make all other users look as if they had been away."""
        ahead = read_interaction(event({**VIEW, "time": "2099-01-01T00:00:00Z"}), kinds=KINDS)
        assert 1_767_225_600_000_000 < ahead.time_us <= time.time_ns() // 1000


PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("found", "carried"),
    [(PARENT, {"traceparent": PARENT.decode()}), (b"00-1", {}), (b"", {}), (b"caf\xe9", {}), (b"a\tb", {})],
)
async def test_a_valid_trace_header_is_passed_on(found, carried):
    """A request's valid `traceparent` becomes an attribute of the reply; an invalid one is dropped."""
    call = event_call(event({"user_id": "zoe"}, type_=events.REQUESTED))
    call = msgspec.structs.replace(call, span=PassOn([(b"traceparent", found)]))
    reply = reply_event(await ExtractFeatures(MemoryStore(), population=UNKNOWN_FEATURES, history_limit=10)(call))
    assert reply.extensions == {"causationid": "1", "correlationid": "1", **carried}


async def test_extract_features_answers_a_recommendation_request():
    """extract_features answers `recommendation.requested.v1` with the event that rank_items needs."""
    store = MemoryStore()
    await store.replace([UserRecord("zoe", "55+")], population=UNKNOWN_FEATURES)
    handler = ExtractFeatures(store, population=UNKNOWN_FEATURES, history_limit=10)
    request = event({"user_id": "zoe", "top_k": 3}, type_=events.REQUESTED, extensions={"correlationid": "c"})
    reply = reply_event(await handler(event_call(request)))
    assert reply.type == events.EXTRACTED
    assert json.loads(reply.data) == {
        "user_id": "zoe",
        "features": {"age_group": "55+", "avg_session_duration": 0.0, "total_purchases": 0, "engagement_score": 0.0},
        "history": [],
        "top_k": 3,
        "exclude": [],
    }
    assert reply.extensions == {"causationid": "1", "correlationid": "c"}


async def test_a_batch_of_requests_gets_a_batch_of_replies():
    """The replies to a batch of events are one batch."""
    handler = ExtractFeatures(MemoryStore(), population=UNKNOWN_FEATURES, history_limit=10)
    requests = [event({"user_id": user}, type_=events.REQUESTED, id=user) for user in "ab"]
    reply = await handler(event_call(*requests))
    assert reply.content_type == b"application/cloudevents-batch+json"
    assert [each["subject"] for each in json.loads(reply.body)] == ["a", "b"]
