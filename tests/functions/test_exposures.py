"""Exposures: recommend returns and reports them, and extract_features keeps them with their outcomes."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest

from chassis.call import Reply
from chassis.environment import SettingsError
from chassis.wire.cloudevents import CloudEvent, read_events
from chassis.wire.problems import DependencyError, InvalidRequestError
from functions.extract_features.exposures import Exposures
from functions.extract_features.handler import ExtractFeatures
from functions.extract_features.settings import ExposureSettings, Settings
from functions.recommend import recommender
from functions.recommend.handler import Recommend
from functions.recommend.outbox import Outbox
from functions.recommend.settings import SinkSettings
from recstore.exposures.records import ExposureOutcome
from recstore.exposures.sqlite import SqliteExposures
from recstore.port import EventOutcome, StoreUnavailableError
from recstore.sqlite import SqliteStore
from recsys.contracts import events
from recsys.contracts.wire import Exploration
from recsys.declaration.reader import default_declaration
from recsys.features import UNKNOWN_FEATURES
from tests.functions.harness import FEATURES, RANKED, FakeHop, event_call, make_call, make_recommender

DECLARATION = default_declaration()
TIME = "2026-05-01T12:00:00Z"
SERVED = {
    "exposure_id": "x1",
    "user_id": "ann",
    "items": [
        {"item_id": "lamp", "score": 0.9, "position": 1, "propensity": 1.0},
        {"item_id": "desk", "score": 0.5, "position": 2, "propensity": 0.25},
    ],
    "model": {"name": "ials", "version": "abc"},
    "degraded": [],
    "request_id": "r",
    "experiment": "colours",
    "arm": "red",
}
CLICK = {"user_id": "ann", "kind": "click", "item_id": "lamp", "time": "2026-05-01T12:05:00Z"}


class Sink(httpx.AsyncBaseTransport):
    """Takes every event."""

    def __init__(self) -> None:
        self.events: list[CloudEvent] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.events += read_events(list(request.headers.raw), request.content)
        return httpx.Response(202)


class Asked:
    """recommend over fake hops, with an outbox unless *reports* is false."""

    def __init__(self, *, reports: bool = True, ranked: object = RANKED) -> None:
        self.ranking, self.sink = FakeHop(ranked), Sink()
        outbox = Outbox(SinkSettings("http://sink.test", {}), source="/r", transport=self.sink)
        self.outbox = outbox if reports else None
        known = FakeHop({"results": [FEATURES] * 2} if "results" in json.dumps(ranked) else FEATURES)
        self.handler = Recommend(make_recommender(known, self.ranking), outbox=self.outbox)

    async def reply(self, body: object) -> Reply:
        if not self.outbox:
            return await self.handler(make_call(body))
        async with self.outbox.sending():
            return await self.handler(make_call(body))


async def test_an_answer_names_its_exposure_in_a_header():
    """The body is that of a pipeline without exposures, byte for byte; the header has the id that the event has."""
    asked = Asked()
    reply = await asked.reply({"user_id": "ann"})
    assert reply.body == (await Asked(reports=False).reply({"user_id": "ann"})).body
    exposure_id = dict(reply.headers)[b"recsys-exposure"].decode()
    (event,) = asked.sink.events
    assert (event.id, json.loads(event.data)["exposure_id"]) == (exposure_id, exposure_id)


async def test_an_answer_includes_its_exposure_if_the_request_does():
    """`include: ["exposure"]` adds the id to the answer; rank_items is not asked for it."""
    asked = Asked()
    reply = await asked.reply({"user_id": "ann", "include": ["exposure", "title"]})
    assert json.loads(reply.body)["exposure_id"] == json.loads(asked.sink.events[0].data)["exposure_id"]
    assert asked.ranking.sent[0]["include"] == ["title"]


async def test_each_answer_of_a_batch_has_its_own_exposure():
    """In a batch, the answers that include the exposure have distinct ids, and the reply has no header."""
    asked = Asked(ranked={"results": [RANKED, RANKED]})
    body = {"requests": [{"user_id": "ann", "include": ["exposure"]}, {"user_id": "bob"}]}
    reply = await asked.reply(body)
    first, second = json.loads(reply.body)["results"]
    reported = [json.loads(event.data)["exposure_id"] for event in asked.sink.events]
    assert first["exposure_id"] in reported
    assert "exposure_id" not in second
    assert len(set(reported)) == 2
    assert b"recsys-exposure" not in dict(reply.headers)


@pytest.mark.parametrize("reports", [False, True])
async def test_an_answer_that_is_not_reported_has_no_exposure(reports):
    """Without a sink, or for a request without a user, there is neither a header nor a field."""
    request = {"history": [{"item_id": "a"}], "include": ["exposure"]} if reports else {"user_id": "ann"}
    asked = Asked(reports=reports)
    reply = await asked.reply(request)
    assert (dict(reply.headers), "exposure_id" in json.loads(reply.body)) == ({}, False)
    assert asked.sink.events == []


class Kept:
    """extract_features with an exposure log in a new store."""

    def __init__(self, path: Path) -> None:
        self.store = SqliteStore(path, create=True)
        # The events below are older than the default retention.
        self.log = SqliteExposures(path, retention_s=1e9)
        self.exposures = Exposures(self.log)
        self.handler = ExtractFeatures(
            self.store, population=UNKNOWN_FEATURES, history_limit=10, declaration=DECLARATION, exposures=self.exposures
        )

    async def take(self, data: object, type_: str = events.SERVED, *, id_: str = "1", **more: Any) -> Reply:
        return await self.handler(event_call(CloudEvent(id_, "/test", type_, data=json.dumps(data).encode(), **more)))

    async def joined(self) -> list[ExposureOutcome]:
        return [each async for each in self.log.scan()]


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    opened = Kept(tmp_path / "store.db")
    async with aclosing(opened.store), aclosing(opened.log):
        yield opened


async def test_an_interaction_becomes_an_outcome(kept):
    """The log joins an interaction to the exposure of its item, and the store counts the interaction."""
    assert (await kept.take(SERVED | {"time": TIME})).status == 202
    assert (await kept.take(CLICK, events.INTERACTION)).status == 202
    (exposure,) = await kept.joined()
    assert (exposure.exposure_id, exposure.user_id, exposure.model, exposure.version) == ("x1", "ann", "ials", "abc")
    assert (exposure.experiment, exposure.arm) == ("colours", "red")
    assert [(each.item_id, each.position, each.propensity, each.outcomes) for each in exposure.items] == [
        ("lamp", 1, 1.0, ("click",)),
        ("desk", 2, 0.25, ()),
    ]
    (known,) = await kept.store.read(["ann"], history=9)
    assert known.clicks == 1


async def test_an_interaction_names_its_exposure(kept):
    """`exposure_id` assigns the interaction to an exposure that is not the newest."""
    for number in (1, 2):
        await kept.take(SERVED | {"exposure_id": f"x{number}", "time": f"2026-05-01T12:0{number}:00Z"})
    await kept.take(CLICK | {"exposure_id": "x1"}, events.INTERACTION)
    assert [each.items[0].outcomes for each in await kept.joined()] == [("click",), ()]
    samples = kept.exposures.actions.collect().samples
    assert [(each.labels, each.value) for each in samples] == [({"kind": "click"}, 1.0)]


async def test_repeated_events_change_nothing(kept):
    """A second delivery of either event is accepted and not counted; the metric tells them apart."""
    for _ in range(2):
        assert (await kept.take(SERVED | {"time": TIME})).status == 202
        assert (await kept.take(CLICK, events.INTERACTION, id_="c")).status == 202
    assert [each.items[0].outcomes for each in await kept.joined()] == [("click",)]
    assert kept.exposures.outcomes == {EventOutcome.ACCEPTED: 1, EventOutcome.REPEATED: 1}


def grouped(count: int, **columns: object) -> dict[str, Any]:
    """Return the data of an event about *count* answers in one part, with other *columns*."""
    part = {
        "exposure_id": [f"x{number}" for number in range(count)],
        "user_id": ["ann"] * count,
        "items": [["lamp", "desk"]] * count,
        "time_us": [1_777_636_800_000_000 + number for number in range(count)],
        "took_us": [900] * count,
        "origins": [{"model": {"name": "ials", "version": "abc"}, "experiment": "colours", "arm": "red"}],
        "origin": [0] * count,
        **columns,
    }
    return {"parts": [part]}


async def test_a_group_is_kept_as_its_answers(kept):
    """Each answer of a group is an exposure with its own time and origin; a repeated event changes nothing."""
    origins = [{"model": {"name": "ials", "version": "abc"}}, {"degraded": ["ranking"]}]
    data = grouped(3, origins=origins, origin=[0, 1, 0], propensities=[None, None, [0.5, 0.25]])
    for _ in range(2):
        assert (await kept.take(data, events.SERVED_GROUP)).status == 202
    found = await kept.joined()
    assert [(each.exposure_id, each.model, each.failed, each.took_us) for each in found] == [
        ("x0", "ials", False, 900),
        ("x1", None, True, 900),
        ("x2", "ials", False, 900),
    ]
    assert [(item.position, item.propensity) for item in found[0].items] == [(1, 1.0), (2, 1.0)]
    assert [(item.position, item.propensity) for item in found[2].items] == [(1, 0.5), (2, 0.25)]
    assert found[1].time_us - found[0].time_us == 1
    assert kept.exposures.outcomes == {EventOutcome.ACCEPTED: 3, EventOutcome.REPEATED: 3}


async def test_the_parts_of_a_group_are_kept_as_one(kept):
    """Each answer of each part keeps its own origin, whichever part names it first; a repeated event changes nothing."""
    ials, failed = {"model": {"name": "ials", "version": "abc"}}, {"degraded": ["ranking"]}
    parts = [
        *grouped(2, origins=[ials], origin=[0, 0])["parts"],
        *grouped(3, exposure_id=["y0", "y1", "y2"], origins=[failed, ials], origin=[0, 1, 0])["parts"],
        *grouped(1, exposure_id=["z0"], origins=[failed], propensities=[[0.5, 0.25]])["parts"],
    ]
    for _ in range(2):
        await kept.take({"parts": parts}, events.SERVED_GROUP)
    found = {each.exposure_id: each for each in await kept.joined()}
    assert found.keys() == {"x0", "x1", "y0", "y1", "y2", "z0"}
    assert {name for name, each in found.items() if each.failed} == {"y0", "y2", "z0"}
    assert [item.propensity for item in found["z0"].items] == [0.5, 0.25]
    assert kept.exposures.outcomes == {EventOutcome.ACCEPTED: 6, EventOutcome.REPEATED: 6}


async def test_a_group_takes_ids_with_quotes_and_backslashes(kept):
    """These characters are allowed in ids, although JSON escapes them as it escapes forbidden ones."""
    await kept.take(grouped(2, user_id=['a"b', "a\\u0001b"]), events.SERVED_GROUP)
    assert sorted(each.user_id for each in await kept.joined()) == ['a"b', "a\\u0001b"]


async def test_a_time_of_a_group_in_the_future_counts_as_the_present(kept):
    """A device whose clock is ahead cannot make an exposure that no interaction can follow."""
    later_us = round((time.time() + 86_400) * 1e6)
    await kept.take(grouped(2, time_us=[1_777_636_800_000_000, later_us]), events.SERVED_GROUP)
    past, present = await kept.joined()
    assert past.time_us == 1_777_636_800_000_000
    assert abs(present.time_us / 1e6 - time.time()) < 60


async def test_an_erased_users_answers_are_refused(kept):
    """The erasure by event removes exposures and actions, and the log of extract_features says how many."""
    await kept.take(SERVED | {"time": TIME})
    await kept.take(CLICK, events.INTERACTION)
    await kept.take({"user_id": "ann"}, events.ERASED)
    await kept.take(grouped(2, user_id=["ann", "bob"]), events.SERVED_GROUP)
    await kept.take(CLICK, events.INTERACTION)
    assert [each.user_id for each in await kept.joined()] == ["bob"]
    assert kept.exposures.outcomes[EventOutcome.ERASED] == 1


async def test_an_interaction_is_not_lost_if_the_log_fails(kept, monkeypatch):
    """If the log does not answer, the event is refused for now; its next delivery is noted, and counted once."""

    async def fail(_entries: object) -> list[EventOutcome]:
        raise StoreUnavailableError("locked")

    await kept.take(SERVED | {"time": TIME})
    with monkeypatch.context() as patch:
        patch.setattr(kept.log, "note", fail)
        with pytest.raises(DependencyError):
            await kept.take(CLICK, events.INTERACTION)
        with pytest.raises(DependencyError):
            await kept.take(SERVED | {"exposure_id": "x2"})
    await kept.take(CLICK, events.INTERACTION)
    assert [each.items[0].outcomes for each in await kept.joined()] == [("click",)]
    (known,) = await kept.store.read(["ann"], history=9)
    assert known.clicks == 1


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"exposure_id": ""}, "$.exposure_id"),
        ({"exposure_id": None}, "$.exposure_id"),
        ({"user_id": "u" * 129}, "$.user_id"),
        ({"time": "yesterday"}, "$.time"),
        ({"time": "1969-01-01T00:00:00Z"}, "$.time"),
        ({"items": ["a", ""]}, "$.items[1]"),
        ({"items": [1]}, "$.items[0]"),
        ({"items": ["a", {"item_id": "a", "position": 0}]}, "$.items[1].position"),
        ({"items": [{"item_id": "a", "position": 1, "propensity": 0}]}, "$.items[0].propensity"),
    ],
)
async def test_a_malformed_answer_is_refused(kept, change, path):
    """The refusal names the field, and nothing of the event is kept."""
    with pytest.raises(InvalidRequestError) as single:
        await kept.take(SERVED | change)
    assert path in [fault.path for fault in single.value.faults]
    assert await kept.joined() == []
    assert kept.handler.ingest.rejected == 1


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"exposure_id": ["x0", ""]}, "$.parts[0].exposure_id[1]"),
        ({"exposure_id": []}, "$.parts[0].exposure_id"),
        ({"user_id": ["ann"]}, "$.parts[0].user_id"),
        ({"user_id": ["ann", "u" * 129]}, "$.parts[0].user_id[1]"),
        ({"user_id": ["ann", "b\u0000b"]}, "$.parts[0].user_id[1]"),
        ({"user_id": ["ann", 'b"\\\u0001b']}, "$.parts[0].user_id[1]"),
        ({"items": [["lamp"], [1]]}, "$.parts[0].items[1][0]"),
        ({"items": [["lamp"]] * 3}, "$.parts[0].items"),
        ({"time_us": [0, -1]}, "$.parts[0].time_us[1]"),
        ({"time_us": [0, 4_102_444_800_000_000]}, "$.parts[0].time_us[1]"),
        ({"took_us": [1.5, 0]}, "$.parts[0].took_us[0]"),
        ({"origin": [0, 1]}, "$.parts[0].origin[1]"),
        ({"origin": [0, -1]}, "$.parts[0].origin[1]"),
        ({"origins": []}, "$.parts[0].origin[0]"),
        ({"propensities": [[1.0, 0], None]}, "$.parts[0].propensities[0][1]"),
        ({"propensities": [[1.0], None]}, "$.parts[0].propensities[0]"),
    ],
)
async def test_a_malformed_group_is_refused(kept, change, path):
    """The refusal names the column and the place, and nothing of the event is kept."""
    with pytest.raises(InvalidRequestError) as group:
        await kept.take(grouped(2, **change), events.SERVED_GROUP)
    assert path in [fault.path for fault in group.value.faults]
    assert await kept.joined() == []
    assert kept.handler.ingest.rejected == 1


async def test_without_exposures_these_events_are_refused(kept):
    """An extract_features that keeps no exposures refuses the events by their type."""
    plain = ExtractFeatures(kept.store, population=UNKNOWN_FEATURES, history_limit=10, declaration=DECLARATION)
    event = CloudEvent("1", "/test", events.SERVED, data=json.dumps(SERVED).encode())
    with pytest.raises(InvalidRequestError, match="no such event"):
        await plain(event_call(event))


def test_the_settings_limit_the_log():
    """EXPOSURES switches the log on; a limit out of range is a fault."""
    env = {"FEATURE_STORE_URL": "memory:", "AUTH": "off"}
    assert Settings.from_env(env).exposures is None
    limits = {"EXPOSURES": "on", "EXPOSURE_RETENTION_S": "60", "EXPOSURES_PER_USER": "5"}
    assert Settings.from_env(env | limits).exposures == ExposureSettings(60.0, 5)
    with pytest.raises(SettingsError, match="EXPOSURES_PER_USER"):
        Settings.from_env(env | {"EXPOSURES_PER_USER": "0"})


async def test_a_long_group_is_read_like_a_short_one(kept):
    """A group of long answers is kept; the faults of a long one name their places, and so do too many answers."""
    items = [[f"item_{place}" for place in range(100)]] * 100
    data = grouped(100, items=items)
    assert len(json.dumps(data)) > 64 * 1024
    await kept.take(data, events.SERVED_GROUP)
    assert len(await kept.joined()) == 100
    data["parts"][0]["exposure_id"][20] = ""
    with pytest.raises(InvalidRequestError) as refusal:
        await kept.take(data, events.SERVED_GROUP)
    assert refusal.value.faults[0].path == "$.parts[0].exposure_id[20]"
    with pytest.raises(InvalidRequestError) as many:
        await kept.take(grouped(events.MAX_PART + 1), events.SERVED_GROUP)
    assert "$.parts[0].exposure_id" in [fault.path for fault in many.value.faults]
    (part,) = grouped(events.MAX_PART)["parts"]
    with pytest.raises(InvalidRequestError) as together:
        await kept.take({"parts": [part] * (events.MAX_GROUP // events.MAX_PART + 1)}, events.SERVED_GROUP)
    assert [fault.path for fault in together.value.faults] == ["$.parts"]


async def test_the_id_that_seeds_a_draw_is_the_id_of_its_event():
    """An answer that is drawn at random and reported has one id: rank_items, the event and the caller get the same."""
    ranking, sink = FakeHop(RANKED), Sink()
    box = Outbox(SinkSettings("http://sink.test", {}), source="/r", transport=sink)
    async with box.sending():
        reply = await Recommend(make_recommender(FakeHop(FEATURES), ranking, exploration=Exploration()), outbox=box)(
            make_call({"user_id": "ann"})
        )
    seed = ranking.sent[0]["exposure_id"]
    assert json.loads(sink.events[0].data)["exposure_id"] == seed == dict(reply.headers)[b"recsys-exposure"].decode()


def test_later_ids_are_greater(monkeypatch):
    """The ids of two milliseconds are in the order of their times; those of one millisecond differ."""
    monkeypatch.setattr("time.time_ns", lambda: 1_799_999_999_999_999_999)
    earlier = {recommender.draw_exposure_id() for _ in range(100)}
    monkeypatch.setattr("time.time_ns", lambda: 1_800_000_000_000_000_000)
    assert len(earlier) == 100
    assert max(earlier) < recommender.draw_exposure_id()


async def test_an_answer_that_needs_no_id_draws_none(monkeypatch):
    """Without exploration and without a sink, a request costs no random bytes."""

    def refuse() -> str:
        raise AssertionError("an id was drawn")

    monkeypatch.setattr(recommender, "draw_exposure_id", refuse)
    monkeypatch.setattr("functions.recommend.outbox.draw_exposure_id", refuse)
    ranking = FakeHop(RANKED)
    reply = await Recommend(make_recommender(FakeHop(FEATURES), ranking))(make_call({"user_id": "ann"}))
    assert (reply.status, "exposure_id" in ranking.sent[0]) == (200, False)
