import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import httpx
import msgspec
import pytest
from msgspec import Raw

from chassis.environment import Reader
from chassis.wire.cloudevents import read_events
from functions.extract_features.exposures import read_group
from functions.recommend import outbox as outbox_module
from functions.recommend.outbox import Outbox, make_served
from functions.recommend.recommender import RecommendAnswer, Recommended
from functions.recommend.served import Noted, describe
from functions.recommend.settings import SinkSettings
from knbroker.topics import find_values
from recsys.contracts.events import MAX_GROUP
from recsys.contracts.wire import MAX_TOP_K
from recsys.experiments.assignment import Treatment
from tests.waiting import until

SHOWN = Recommended(
    RecommendAnswer(
        "zoe", Raw(b'[{"item_id":"a","score":0.9},{"item_id":"b","score":0.5}]'), ("features",), {"features": "x"}
    ),
    Raw(b'{"name":"ials","version":"abc"}'),
    exposure_id="x1",
)
SINK = SinkSettings("http://broker.test/default", {"tenant": "t1"})


class Broker(httpx.AsyncBaseTransport):
    """A broker that returns the given statuses in order and repeats the last."""

    def __init__(self, *answers: int | Exception) -> None:
        self._answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.open = asyncio.Event()
        self.open.set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        await self.open.wait()
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer)


async def no_sleep(_seconds: float) -> None:
    await asyncio.sleep(0)


def outbox(broker: Broker, *, group: int = 1) -> Outbox:
    settings = replace(SINK, group=group)
    return Outbox(settings, source="/functions/recommend", transport=broker, sleep=no_sleep)


@asynccontextmanager
async def sending(*answers: int | Exception, group: int = 1) -> AsyncIterator[tuple[Broker, Outbox]]:
    """Send events to a broker until the block ends; the rest is sent at its end."""
    broker = Broker(*answers)
    box = outbox(broker, group=group)
    async with box.sending():
        yield broker, box


def test_the_event_describes_the_answer():
    """The event lists the items with score and propensity, the model, the degraded parts and the request id."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    noted = Noted(SHOWN, "x1", "r", time_us=round(moment.timestamp() * 1e6), took_s=0.0123)
    event = make_served(noted, describe(noted), source="/s", extensions={"tenant": "t1"})
    assert (event.type, event.subject, event.time) == ("dev.recsys.recommendation.served.v1", "zoe", moment)
    assert event.extensions == {"tenant": "t1"}
    assert json.loads(event.data) == {
        "exposure_id": "x1",
        "user_id": "zoe",
        "items": [
            {"item_id": "a", "score": 0.9, "position": 1, "propensity": 1.0},
            {"item_id": "b", "score": 0.5, "position": 2, "propensity": 1.0},
        ],
        "model": {"name": "ials", "version": "abc"},
        "degraded": ["features"],
        "request_id": "r",
        "experiment": None,
        "arm": None,
        "took_us": 12_300,
    }
    popular = Recommended(SHOWN.answer, Raw(b"null"))
    assert describe(Noted(popular, "x1", "r", time_us=0, took_s=0)).model is None


async def test_events_are_sent_in_the_background():
    """Each noted answer becomes one well-formed event at the sink, including those noted last."""
    async with sending(202) as (broker, box):
        for number in range(10):
            box.note(msgspec.structs.replace(SHOWN, exposure_id=f"x{number}"), request_id="r")
    assert (box.statistics.sent, box.statistics.dropped, box.statistics.failed) == (10, 0, 0)
    ids = {read_events(list(request.headers.raw), request.content)[0].id for request in broker.requests}
    assert len(ids) == 10
    assert str(broker.requests[0].url) == SINK.url


@pytest.mark.parametrize("trouble", [503, 429, httpx.ConnectError("away")])
async def test_transient_sink_failures_are_retried(trouble):
    """The sender retries a transient failure with the same event."""
    async with sending(trouble, trouble, 202) as (broker, box):
        box.note(SHOWN, request_id="r")
    assert box.statistics.sent == 1
    assert len({request.headers["ce-id"] for request in broker.requests}) == 1


@pytest.mark.parametrize(("answer", "attempts"), [(400, 1), (503, 5)])
async def test_an_undeliverable_event_is_dropped_and_counted(answer, attempts, caplog):
    """A refusal is final, and so is the fifth failed attempt; the log does not contain the event."""
    async with sending(answer) as (broker, box):
        box.note(SHOWN, request_id="r")
    assert (box.statistics.failed, len(broker.requests)) == (1, attempts)
    assert "zoe" not in caplog.text


async def test_an_unreadable_answer_does_not_stop_the_senders():
    """Unreadable answers, even more than there are senders, are counted, and later ones are sent."""
    items = Raw(b'[{"item_id":"a","score":null}]')
    unreadable = Recommended(msgspec.structs.replace(SHOWN.answer, recommendations=items), SHOWN.model)
    async with sending(202) as (_, box):
        for recommended in [unreadable] * 8 + [SHOWN] * 3:
            box.note(recommended, request_id="r")
    assert (box.statistics.sent, box.statistics.dropped, box.statistics.failed) == (3, 0, 8)


async def test_a_slow_sink_drops_events_instead_of_using_memory(monkeypatch):
    """Events beyond the bytes of the queue are dropped and counted, and no caller waits for them."""
    monkeypatch.setattr(outbox_module, "QUEUE_BYTES", 5 * 150)
    monkeypatch.setattr(outbox_module, "FLUSH_S", 0.01)
    async with sending(202) as (broker, box):
        broker.open.clear()
        for _ in range(20):
            box.note(SHOWN, request_id="r")
    assert box.statistics.sent == 0
    assert box.statistics.dropped >= 15


async def test_long_answers_drop_events_instead_of_using_memory(monkeypatch):
    """Parts beyond the bytes of the queue are dropped; once the others are sent, the queue takes answers again."""
    items = Raw(json.dumps([{"item_id": "a" * 100, "score": 1.0}] * 10).encode())
    long = Recommended(RecommendAnswer("zoe", items), SHOWN.model)
    monkeypatch.setattr(outbox_module, "QUEUE_BYTES", 3 * 1030)
    async with sending(202, group=2) as (_, box):
        assert [bool(box.note(long, request_id="r")) for _ in range(6)] == [True] * 4 + [False] * 2
        await until(lambda: box.statistics.sent == 4)
        assert box.note(long, request_id="r")
    assert (box.statistics.sent, box.statistics.dropped) == (5, 2)


def test_the_sink_is_read_from_knatives_variables():
    """The settings read and check K_SINK and K_CE_OVERRIDES, the variables that a SinkBinding sets."""

    def read(**env: str) -> tuple[SinkSettings | None, list[str]]:
        reader = Reader(env)
        return SinkSettings.read(reader), reader.faults

    assert read() == (None, [])
    assert read(K_SINK="http://b", K_CE_OVERRIDES='{"extensions":{"a":"1"}}') == (
        SinkSettings("http://b", {"a": "1"}),
        [],
    )
    assert read(K_SINK="http://b", SERVED_EVENTS_GROUP="9")[0] == SinkSettings("http://b", {}, 9)
    assert len(read(K_SINK="b")[1]) == 1
    assert len(read(K_SINK="http://b", SERVED_EVENTS_GROUP="2049")[1]) == 1
    assert len(read(K_SINK="http://b", K_CE_OVERRIDES="{")[1]) == 1
    assert len(read(K_SINK="http://b", K_CE_OVERRIDES='{"extensions":{"a-b":"1","c":"\\u0007","d":"2"}}')[1]) == 2


async def test_answers_that_follow_each_other_share_an_event():
    """With a group size, events describe up to that many answers in their order, each with its time and id."""
    async with sending(202, group=4) as (broker, box):
        for exposure_id in (ids := [f"x{number}" for number in range(10)]):
            box.note(msgspec.structs.replace(SHOWN, exposure_id=exposure_id), request_id="r")
    sent = [read_events(list(request.headers.raw), request.content)[0] for request in broker.requests]
    assert {event.type for event in sent} == {"dev.recsys.recommendation.served.group.v1"}
    groups = [json.loads(event.data)["parts"][0] for event in sent]
    assert max(len(group["exposure_id"]) for group in groups) == 4
    assert [exposure_id for group in groups for exposure_id in group["exposure_id"]] == ids
    assert all(abs(time_us / 1e6 - time.time()) < 60 for group in groups for time_us in group["time_us"])
    assert all(user_id == "zoe" for group in groups for user_id in group["user_id"])
    assert groups[0]["items"][0] == ["a", "b"]
    assert "propensities" not in groups[0]
    assert (box.statistics.sent, box.statistics.failed) == (10, 0)


async def test_answers_of_a_group_that_were_made_alike_share_their_origin():
    """A group describes each model and arm once; an answer has the place of its description."""
    other = msgspec.structs.replace(SHOWN, model=Raw(b"null"), treatment=Treatment("colours", "red"), arm_failed=True)
    async with sending(202, group=9) as (broker, box):
        for recommended in (SHOWN, other, SHOWN, other):
            box.note(recommended, request_id="r")
    ((group,),) = [json.loads(request.content)["parts"] for request in broker.requests]
    assert group["origin"] == [0, 1, 0, 1]
    assert group["origins"] == [
        {"model": {"name": "ials", "version": "abc"}, "degraded": ["features"]},
        {"experiment": "colours", "arm": "red", "degraded": ["features"], "arm_failed": True},
    ]


async def test_a_group_holds_propensities_that_are_not_1():
    """A group in which an item was drawn has the propensities of that answer, and null for the others."""
    async with sending(202, group=9) as (broker, box):
        box.note(SHOWN, request_id="r")
        box.note(msgspec.structs.replace(SHOWN, propensities=Raw(b"[0.9,0.1]")), request_id="r")
    (request,) = broker.requests
    assert json.loads(request.content)["parts"][0]["propensities"] == [None, [0.9, 0.1]]
    (event,) = read_events(list(request.headers.raw), request.content)
    plain, drawn = read_group(event).exposures()
    assert [(item.position, item.propensity) for item in plain.shown()] == [(1, 1.0), (2, 1.0)]
    assert [(item.position, item.propensity) for item in drawn.shown()] == [(1, 0.9), (2, 0.1)]


async def test_a_full_group_is_sent_immediately(monkeypatch):
    """A group that is full does not wait for the time of a group, and neither does the rest at the end."""
    monkeypatch.setattr(outbox_module, "_GATHER_S", 3600)
    async with sending(202, group=3) as (_, box):
        for _ in range(3):
            box.note(SHOWN, request_id="r")
        await until(lambda: box.statistics.sent == 3)
        box.note(SHOWN, request_id="r")
    assert box.statistics.sent == 4


async def test_a_group_is_cut_by_its_bytes(monkeypatch):
    """A group that would exceed the limit of bytes is sent as several events; none of its answers is lost."""
    monkeypatch.setattr(outbox_module, "_GROUP_BYTES", 400)
    async with sending(202, group=100) as (broker, box):
        ids = [box.note(msgspec.structs.replace(SHOWN, exposure_id=f"x{n}"), request_id="r") for n in range(9)]
    groups = [json.loads(request.content)["parts"][0] for request in broker.requests]
    assert [exposure_id for group in groups for exposure_id in group["exposure_id"]] == ids
    assert len(groups) > 1
    assert all(len(group["origins"]) == 1 for group in groups)
    assert max(len(request.content) for request in broker.requests) <= 400
    assert box.statistics.sent == 9


async def test_groups_of_the_longest_lists_are_read():
    """extract_features reads the groups about lists of drawn items, whose bodies are within its limit."""
    item = {"item_id": "a", "score": 1.0}
    drawn = Recommended(
        RecommendAnswer("u", Raw(json.dumps([item] * MAX_TOP_K).encode())),
        Raw(b'{"name":"m","version":"1"}'),
        Raw(json.dumps([0.5] * MAX_TOP_K).encode()),
    )
    async with sending(202, group=MAX_GROUP) as (broker, box):
        ids = [box.note(drawn, request_id="r") for _ in range(99)]
    kept = [
        exposure
        for request in broker.requests
        for event in read_events(list(request.headers.raw), request.content)
        for exposure in read_group(event).exposures()
    ]
    assert {each.exposure_id for each in kept} == set(ids)
    assert all(len(each.items) == MAX_TOP_K for each in kept)
    assert max(len(request.content) for request in broker.requests) <= 256 * 1024


async def test_a_group_has_parts_of_answers():
    """recommend describes a part of a group as soon as it is complete; extract_features reads all parts in their order."""
    async with sending(202, group=MAX_GROUP) as (broker, box):
        ids = [box.note(msgspec.structs.replace(SHOWN, exposure_id=f"x{n}"), request_id="r") for n in range(100)]
    (request,) = broker.requests
    (event,) = read_events(list(request.headers.raw), request.content)
    assert [len(part["exposure_id"]) for part in json.loads(event.data)["parts"]] == [32, 32, 32, 4]
    assert [each.exposure_id for each in read_group(event).exposures()] == ids
    assert len(read_group(event).origins) == 1
    # The broker looks for the users of an erasure in the events that it holds.
    assert find_values("user_id", {}, event.data) == {"zoe"}


async def test_a_group_without_its_unreadable_answer_is_sent():
    """An answer that cannot be decoded is counted as failed; the others of its group are sent."""
    unreadable = Recommended(SHOWN.answer, Raw(b'{"name":1}'))
    uneven = msgspec.structs.replace(SHOWN, propensities=Raw(b"[0.9]"))
    async with sending(202, group=10) as (broker, box):
        for recommended in [SHOWN, unreadable, uneven, SHOWN]:
            box.note(recommended, request_id="r")
    assert (box.statistics.sent, box.statistics.failed) == (2, 2)
    assert {len(each) for each in json.loads(broker.requests[0].content)["parts"][0].values()} == {1, 2}
    async with sending(202, group=10) as (broker, box):
        box.note(unreadable, request_id="r")
    assert (box.statistics.failed, broker.requests) == (1, [])


async def test_the_caller_learns_of_a_dropped_answer(monkeypatch):
    """A full queue is told to the handler, which then returns no exposure id."""
    monkeypatch.setattr(outbox_module, "QUEUE_BYTES", 1)
    box = outbox(Broker(202))
    assert [box.note(SHOWN, request_id="r") for _ in range(2)] == ["x1", ""]
