"""Events through the whole local pipeline: broker, Triggers, functions, store."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from recrank.artefact import ITEMS
from tests.demo import DemoState
from tests.e2e.verbs import verb
from tests.programs import needs_redis
from tests.running import CLIENT
from tests.waiting import eventually
from tools.bench.redis_server import redis_running
from tools.chaos import kills, outage
from tools.running import RunningPipeline, pipeline_running

pytestmark = [pytest.mark.scenario, pytest.mark.may_block, pytest.mark.timeout(400)]

INTERACTION = {
    "ce-specversion": "1.0",
    "ce-type": "dev.recsys.interaction.v1",
    "ce-source": "/test",
    "content-type": "application/json",
}
SEEN = {"user_id": "user_7", "kind": "view", "item_id": "item_1"}


@pytest.fixture(scope="module", params=["sqlite", pytest.param("redis", marks=needs_redis)])
def store(request: pytest.FixtureRequest) -> str:
    """Return the kind of feature store."""
    return str(request.param)


@pytest.fixture(scope="module")
def folder(demo_state: DemoState, store: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the state directory."""
    folder = tmp_path_factory.mktemp(f"events-{store}")
    demo_state.copy_to(folder)
    return folder


@pytest.fixture(scope="module")
def pipeline(folder: Path, store: str) -> Iterator[RunningPipeline]:
    """Start the pipeline on that store, with two instances of extract_features."""
    with kills.chaos_pipeline(folder, store) as running:
        yield running


def post(pipeline: RunningPipeline, content: bytes, id_: str, **headers: str) -> httpx.Response:
    return CLIENT.post(pipeline.broker_url, content=content, headers={**INTERACTION, "ce-id": id_, **headers})


def trigger(pipeline: RunningPipeline, name: str = "interactions") -> dict[str, Any]:
    return pipeline.events()["triggers"][f"default/{name}"]  # type: ignore[no-any-return]


def recommend(pipeline: RunningPipeline, user: str, top_k: int) -> list[str]:
    answer = CLIENT.post(f"http://127.0.0.1:{pipeline.port}", json={"user_id": user, "top_k": top_k}).json()
    assert "degraded" not in answer
    return [each["item_id"] for each in answer["recommendations"]]


def test_an_interaction_changes_the_next_recommendation(pipeline: RunningPipeline, folder: Path) -> None:
    """After the delivery of a purchase, its item is not recommended and more items of its category are."""
    (model,) = (folder / "models").iterdir()
    category = {item["item_id"]: item["attributes"]["category"][0] for item in json.loads((model / ITEMS).read_text())}
    before = recommend(pipeline, "user_of_this_test", 20)
    kinds = Counter(category[item] for item in before)
    bought = min(before, key=lambda item: kinds[category[item]])
    delivered = trigger(pipeline)["delivered"]
    body = json.dumps({"user_id": "user_of_this_test", "kind": "purchase", "item_id": bought}).encode()
    assert post(pipeline, body, "shows").status_code == 202
    eventually(lambda: trigger(pipeline)["delivered"] > delivered)
    after = recommend(pipeline, "user_of_this_test", 20)
    assert bought not in after
    assert Counter(category[item] for item in after)[category[bought]] > kinds[category[bought]]


@pytest.mark.parametrize(
    ("name", "body", "code", "reason"),
    [
        ("json", b"{", 400, "not-json"),
        ("kind", json.dumps(SEEN | {"kind": "stare"}).encode(), 422, "$.kind"),
        ("large", json.dumps(SEEN | {"user_id": "u" * 1_000_000}).encode(), 413, "body-too-large"),
    ],
)
def test_invalid_data_becomes_a_dead_letter(
    pipeline: RunningPipeline, name: str, body: bytes, code: int, reason: str
) -> None:
    """The broker accepts the event, extract_features refuses it with 4xx, and one attempt leaves one dead letter."""
    before = trigger(pipeline)
    assert post(pipeline, body, f"dead-{name}").status_code == 202
    eventually(lambda: trigger(pipeline)["dead"] == before["dead"] + 1)
    assert trigger(pipeline)["failed"] == before["failed"] + 1
    (letter,) = [each for each in pipeline.events()["dead_letters"] if each["event"]["id"] == f"dead-{name}"]
    assert letter["failure"]["code"] == code
    assert reason in letter["failure"]["reason"]


def test_the_event_verbs_send_list_and_redrive(pipeline: RunningPipeline, folder: Path) -> None:
    """`send-event` posts an event, `events` lists dead letters, and `redrive` delivers one again."""
    state = ["--state-dir", str(folder)]
    sent = json.loads(
        verb("send-event", "--user", "user_9", "--kind", "purchase", "--item", "item_9", "--json", *state).stdout
    )
    assert (sent["status"], sent["type"], sent["subject"]) == (202, "dev.recsys.interaction.v1", "user_9")
    assert "is accepted" in verb("send-event", "--kind", "session_end", *state).stdout
    assert "source must be a URI" in verb("send-event", "--source", "a b", *state, status=1).stderr
    assert "no Broker default/other is running" in verb("send-event", "--broker", "other", *state, status=1).stderr
    verb("send-event", "--id", "to-redrive", "--data", "{}", *state)
    eventually(lambda: "dead letter to-redrive" in verb("events", *state).stdout)
    assert "dead letters sent again: 1" in verb("events", "redrive", "to-redrive", *state).stdout
    eventually(lambda: "to-redrive" in str(json.loads(verb("events", "--json", *state).stdout)["dead_letters"]))
    delivered = trigger(pipeline, "recommendation-requests")["delivered"]
    verb("send-event", "--type", "dev.recsys.recommendation.requested.v1", *state)
    eventually(lambda: trigger(pipeline, "recommendation-requests")["delivered"] == delivered + 1)


def test_an_erasure_leaves_nothing_in_any_file(pipeline: RunningPipeline, folder: Path, store: str) -> None:
    """Store, queue, dead letters, logs and the files of Redis hold nothing of the user, also of events that come later."""
    user = "ann-of-the-hill"
    told = json.dumps({"user_id": user, "kind": "view", "item_id": "item_1"}).encode()
    before = trigger(pipeline)
    if store == "redis":
        with Redis.from_url(pipeline.store_url) as redis:
            redis.config_set("rdbcompression", "no")
    for number in range(5):
        assert post(pipeline, told, f"early-{number}").status_code == 202
    assert post(pipeline, told.replace(b"item_id", b"thing"), "dead-of-the-user", **{"ce-subject": user}).is_success
    recommend(pipeline, user, 5)
    eventually(lambda: trigger(pipeline)["dead"] == before["dead"] + 1)
    eventually(lambda: trigger(pipeline)["delivered"] == before["delivered"] + 5)
    assert user.encode() in content(folder)
    late = [post(pipeline, told, f"between-{number}") for number in range(20)]
    place = ["--store", pipeline.store_url] if store == "redis" else []
    erased = verb("users", "erase", user, "--state-dir", str(folder), *place)
    assert json.loads(erased.stdout)["verified"]
    late += [post(pipeline, told, f"late-{number}") for number in range(20)]
    late.append(post(pipeline, told.replace(b"item_id", b"thing"), "dead-after-the-erasure"))
    assert {each.status_code for each in late} == {202}
    eventually(lambda: pipeline.events()["waiting"] == 0)
    eventually(lambda: user.encode() not in content(folder))
    eventually(lambda: trigger(pipeline)["dead"] == before["dead"])


def content(folder: Path) -> bytes:
    """Return what the files of *folder* hold, leaving out those that end while they are read."""
    held = []
    for file in folder.rglob("*"):
        with suppress(OSError):
            held.append(file.read_bytes() if file.is_file() else b"")
    return b"".join(held)


def test_the_broker_receives_served_events(pipeline: RunningPipeline) -> None:
    """With a sink, recommend sends `recommendation.served.v1` after each answer; no Trigger wants it here."""
    before = pipeline.events()["unwanted"]
    recommend(pipeline, "user_1", 5)
    eventually(lambda: pipeline.events()["unwanted"] > before)


def test_random_kills_lose_and_repeat_no_event(pipeline: RunningPipeline, store: str) -> None:
    """
    Every user's record matches the events although the broker, Envoy and instances of all functions are killed.

    tools.chaos.kills runs this at full size.
    """
    dead = trigger(pipeline)["dead"]
    outcome = asyncio.run(kills.run(pipeline, store=store, events=2000, users=100, senders=16, seed=3))
    assert outcome.kills
    assert (outcome.posts, outcome.wrong_users, outcome.waiting) == (2400, 0, 0)
    assert outcome.dead_letters == dead


@needs_redis
@pytest.mark.parametrize("mode", ["stop", "kill"])
def test_an_outage_of_the_store_loses_no_event(mode: str, demo_state: DemoState, tmp_path: Path) -> None:
    """
    While Redis is down, recommend gives degraded answers and events wait; each is counted once after the outage.

    tools.chaos.outage runs this at full size.
    """
    demo_state.copy_to(tmp_path)
    with redis_running(tmp_path) as redis, pipeline_running(tmp_path, redis_url=redis.url) as pipeline:
        outcome = asyncio.run(outage.run(pipeline, redis, mode=mode, seconds=3.0, rate=20.0))
    assert outcome.nothing_lost, outcome
    assert outcome.failed_attempts > 0
