"""Events through the whole pipeline on this machine: broker, Triggers, functions, store."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from recsys.ranking.artefact import ITEMS
from tests.e2e.verbs import verb
from tools.bench.redis_server import PROGRAM, redis_running
from tools.chaos import kills, outage
from tools.chaos.pipeline import Pipeline, pipeline_running

pytestmark = [pytest.mark.scenario, pytest.mark.may_block, pytest.mark.timeout(400)]

needs_redis = pytest.mark.skipif(PROGRAM is None, reason="redis-server is not installed")
INTERACTION = {
    "ce-specversion": "1.0",
    "ce-type": "dev.recsys.interaction.v1",
    "ce-source": "/test",
    "content-type": "application/json",
}
SEEN = {"user_id": "user_7", "kind": "view", "item_id": "item_1"}


@pytest.fixture(scope="module", params=["sqlite", pytest.param("redis", marks=needs_redis)])
def store(request: pytest.FixtureRequest) -> str:
    """Which kind of feature store."""
    return str(request.param)


@pytest.fixture(scope="module")
def folder(store: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state directory."""
    return tmp_path_factory.mktemp(f"events-{store}")


@pytest.fixture(scope="module")
def pipeline(folder: Path, store: str) -> Iterator[Pipeline]:
    """The pipeline on that store, extract_features twice."""
    with kills.chaos_pipeline(folder, store) as running:
        yield running


def post(pipeline: Pipeline, content: bytes, id_: str, **headers: str) -> httpx.Response:
    return httpx.post(pipeline.broker_url, content=content, headers={**INTERACTION, "ce-id": id_, **headers})


def trigger(pipeline: Pipeline, name: str = "interactions") -> dict[str, Any]:
    return pipeline.events()["triggers"][f"default/{name}"]  # type: ignore[no-any-return]


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def recommend(pipeline: Pipeline, user: str, top_k: int) -> list[str]:
    answer = httpx.post(f"http://127.0.0.1:{pipeline.port}", json={"user_id": user, "top_k": top_k}, timeout=10).json()
    assert "degraded" not in answer
    return [each["item_id"] for each in answer["recommendations"]]


def test_an_interaction_shows_in_the_next_recommendation(pipeline: Pipeline, folder: Path) -> None:
    """As soon as the event is delivered: the item has left the list, and others like it have risen."""
    (model,) = (folder / "models").iterdir()
    category = {item["item_id"]: item["category"] for item in json.loads((model / ITEMS).read_text())}
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
    ("headers", "body", "status", "reason"),
    [
        ({"ce-id": ""}, b"{}", 400, "id must not be empty"),
        ({"ce-type": ""}, b"{}", 400, "type must not be empty"),
        ({"ce-source": "a b"}, b"{}", 400, "source must be a URI reference"),
        ({"ce-specversion": "9.9"}, b"{}", 400, "specversion must be 1.0"),
        ({"ce-subject": "%ff"}, b"{}", 400, "subject must be UTF-8"),
        ({"content-type": "application/cloudevents+json"}, b'{"id":', 400, "no JSON object"),
        ({"content-type": "application/cloudevents+json"}, b'{"id":"\xff"}', 400, "no JSON object"),
        ({"content-type": "application/cloudevents+json"}, b'{"specversion":"1.0"}', 400, "type is missing"),
        ({}, b"x" * 3_000_000, 413, "bytes"),
    ],
)
def test_what_is_no_event_is_refused_by_the_broker(
    pipeline: Pipeline, headers: dict[str, str], body: bytes, status: int, reason: str
) -> None:
    """4xx with the reason, and the broker keeps nothing of it."""
    before = pipeline.events()
    answer = post(pipeline, body, "refused", **headers)
    assert answer.status_code == status
    assert reason in answer.text
    assert pipeline.events()["dead_letters"] == before["dead_letters"]


@pytest.mark.parametrize(
    ("name", "body", "code", "reason"),
    [
        ("json", b"{", 400, "not-json"),
        ("utf8", b'{"user_id":"\xff"}', 400, "not-json"),
        ("empty", b"", 400, "not-json"),
        ("missing", b'{"user_id":"user_7"}', 422, "$.kind"),
        ("kind", json.dumps(SEEN | {"kind": "stare"}).encode(), 422, "$.kind"),
        ("number", json.dumps(SEEN | {"user_id": 7}).encode(), 422, "$.user_id"),
        ("item", json.dumps({"user_id": "user_7", "kind": "view"}).encode(), 422, "$.item_id"),
        ("unknown", json.dumps(SEEN | {"colour": 1}).encode(), 422, "colour"),
        ("large", json.dumps(SEEN | {"user_id": "u" * 1_000_000}).encode(), 413, "body-too-large"),
    ],
)
def test_data_nobody_can_count_are_a_dead_letter_once(
    pipeline: Pipeline, name: str, body: bytes, code: int, reason: str
) -> None:
    """The broker takes the event, extract_features refuses it with 4xx: one attempt, one letter that says why."""
    before = trigger(pipeline)
    assert post(pipeline, body, f"dead-{name}").status_code == 202
    eventually(lambda: trigger(pipeline)["dead"] == before["dead"] + 1)
    assert trigger(pipeline)["failed"] == before["failed"] + 1
    (letter,) = [each for each in pipeline.events()["dead_letters"] if each["event"]["id"] == f"dead-{name}"]
    assert letter["failure"]["code"] == code
    assert reason in letter["failure"]["reason"]


def test_the_verbs(pipeline: Pipeline, folder: Path) -> None:
    """send-event posts one, events shows it, redrive delivers a dead letter again."""
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
    assert "1 dead letters" in verb("events", "redrive", "to-redrive", *state).stdout
    eventually(lambda: "to-redrive" in str(json.loads(verb("events", "--json", *state).stdout)["dead_letters"]))
    delivered = trigger(pipeline, "recommendation-requests")["delivered"]
    verb("send-event", "--type", "dev.recsys.recommendation.requested.v1", *state)
    eventually(lambda: trigger(pipeline, "recommendation-requests")["delivered"] == delivered + 1)


def test_the_broker_hears_what_was_shown(pipeline: Pipeline) -> None:
    """With a sink, `recommendation.served.v1` follows every answer; here no Trigger wants it."""
    before = pipeline.events()["unwanted"]
    recommend(pipeline, "user_1", 5)
    eventually(lambda: pipeline.events()["unwanted"] > before)


def test_killed_at_random_nothing_is_lost_and_nothing_counted_twice(pipeline: Pipeline, store: str) -> None:
    """Every user's record is what the events say, while broker and instances die; full size: tools.chaos.kills."""
    dead = trigger(pipeline)["dead"]
    outcome = asyncio.run(kills.run(pipeline, store=store, events=2000, users=100, senders=16, seed=3))
    assert outcome.kills
    assert (outcome.posts, outcome.wrong_users, outcome.waiting) == (2400, 0, 0)
    assert outcome.dead_letters == dead


@needs_redis
@pytest.mark.parametrize("mode", ["stop", "kill"])
def test_without_its_store_recommend_answers_and_events_wait(mode: str, tmp_path: Path) -> None:
    """Degraded answers, no lost event, and everything counted once when Redis is back; full size: tools.chaos.outage."""
    with redis_running(tmp_path) as redis, pipeline_running(tmp_path, redis_url=redis.url) as pipeline:
        outcome = asyncio.run(outage.run(pipeline, redis, mode=mode, seconds=3.0, rate=20.0))
    assert outcome.nothing_lost, outcome
    assert outcome.failed_attempts > 0
