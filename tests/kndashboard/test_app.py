"""The dashboard's endpoints and their access rules."""

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from kndashboard.app import STATIC, Dashboard
from kndashboard.columns import WIDTH
from kndashboard.history import SnapshotHistory
from kndashboard.queries import PlatformQueries
from kndashboard.ring import RingFile
from kndashboard.snapshots import Watcher
from localkn.errors import PlatformError, RefusedError
from localkn.state import PlatformDirectory
from recsys.items import Item
from tests.kndashboard.seen import revision, service, status

pytestmark = [pytest.mark.anyio, pytest.mark.may_block]

RUNNING = status(recommend=service(revision("recommend-00001", "ready", "ready"), public=True))
COUNTED = "# TYPE recsys_requests counter\nrecsys_requests_total 3\n"
ANSWER = {"recommendations": [{"item_id": "a", "score": 1.0}]}


CHOICE = {"what": "all hold-out users: 1 factors", "ndcg_10": 0.39, "recall_20": 0.47}
ITEMS = [Item("a", "The Crown", {"category": ("Fantasy", "War"), "brand": ("North",)}), Item("b")]
JSON = {"content-type": "application/json"}


def service_object(place: str) -> dict[str, Any]:
    env = [{"name": "SECRET", "valueFrom": {}}, {"name": "MODEL_PATH", "value": place}]
    return {"spec": {"template": {"spec": {"containers": [{"env": env}]}}}}


def write_artefact(folder: Path, **changes: Any) -> None:
    folder.mkdir(exist_ok=True)
    training = {"dataset": "demo", "users": 3, "items": 2, "ties": 4, "choice": [CHOICE]}
    manifest = {"name": "ials", "version": "2d90", "metrics": {}, "training": training}
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))
    (folder / "items.json").write_bytes(msgspec.json.encode(ITEMS))


class FakePlatform:
    """The platform that the dashboard observes: a status, instances and a public URL, each changeable by a test."""

    def __init__(self) -> None:
        self.status: dict[str, Any] | None = RUNNING
        self.exposed: dict[int, str] = {20_001: COUNTED}
        self.door = httpx.Response(200, json=ANSWER, headers={"server-timing": "total;dur=1.5"})
        self.asked: list[httpx.Request] = []
        self.looks = 0
        self.answers: dict[str, Any] = {"services": []}
        self.called: list[tuple[str, dict[str, Any]]] = []

    async def ask(self) -> dict[str, Any]:
        self.looks += 1
        if self.status is None:
            raise PlatformError("nothing is running in there")
        return self.status

    def queries(self, folder: Path) -> PlatformQueries:
        return FakeQueries(self, folder)

    async def scrape(self, port: int) -> str:
        if port not in self.exposed:
            raise httpx.ConnectError("refused")
        return self.exposed[port]

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if self.door.status_code == 599:
            raise httpx.ConnectError("")
        return self.door


class FakeQueries(PlatformQueries):
    """The platform of a folder whose logs are files, and whose answers the test sets."""

    def __init__(self, platform: FakePlatform, folder: Path) -> None:
        super().__init__(PlatformDirectory(folder))
        self._platform = platform

    def _call(self, verb: str, **arguments: Any) -> Any:
        self._platform.called.append((verb, arguments))
        answer = self._platform.answers[verb]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def platform() -> FakePlatform:
    return FakePlatform()


@pytest.fixture
def model(platform: FakePlatform, tmp_path: Path) -> Path:
    """Return the folder of a model that the platform serves."""
    folder = tmp_path / "model"
    write_artefact(folder)
    platform.answers["services"] = [service_object(str(folder))]
    return folder


@pytest.fixture
async def page(platform: FakePlatform, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    ring = RingFile(tmp_path / "history.ring", width=WIDTH)
    recent = SnapshotHistory(Watcher(platform.ask, platform.scrape))
    async with httpx.AsyncClient(transport=httpx.MockTransport(platform.answer)) as outside:
        app = Dashboard(recent, ring, outside, platform=platform.queries(tmp_path)).app()
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8081") as client:
            yield client
    ring.close()


async def test_metrics_of_all_instances_are_combined(page: httpx.AsyncClient) -> None:
    """The answer contains the metrics of every readable instance and marks the others as down."""
    answer = await page.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'pod="recommend-00001-1",revision="recommend-00001",service="recommend"} 3.0' in answer.text
    assert 'localkn_instance_up{namespace="default",pod="recommend-00001-2"' in answer.text
    up = [line[-3:] for line in answer.text.splitlines() if line.startswith("localkn_instance_up{")]
    assert up == ["1.0", "0.0"]


@pytest.mark.parametrize("said", ["not metrics at all", "a{b 3"])
async def test_an_invalid_exposition_is_left_out(page: httpx.AsyncClient, platform: FakePlatform, said: str) -> None:
    """An instance with an invalid answer does not affect the metrics of the others."""
    platform.exposed = {20_001: said, 20_002: COUNTED}
    text = (await page.get("/metrics")).text
    assert 'pod="recommend-00001-2",revision="recommend-00001",service="recommend"} 3.0' in text


async def test_a_stopped_platform_is_reported(page: httpx.AsyncClient, platform: FakePlatform) -> None:
    """Every endpoint that needs the platform answers 503 with the reason."""
    platform.status = None
    for path in ("/metrics", "/_dashboard/state"):
        answer = await page.get(path)
        assert (answer.status_code, answer.json()["detail"]) == (503, "nothing is running in there")
        assert answer.headers["content-type"] == "application/problem+json"


async def test_the_page_is_small_and_self_contained(page: httpx.AsyncClient) -> None:
    """The page loads at most 150 KB, all from the dashboard itself, and its policy allows nothing else."""
    first = await page.get("/", follow_redirects=True)
    assert first.url.path == "/_dashboard"
    total = len(first.content)
    files = {file.name for file in STATIC.iterdir()} - {"index.html"}
    assert {"page.js", "style.css"} < files
    for name in files:
        answer = await page.get(f"/_dashboard/{name}")
        assert answer.status_code == 200, name
        assert answer.headers["x-content-type-options"] == "nosniff"
        total += len(answer.content)
    total += len((await page.get("/_dashboard/state")).content)
    assert total <= 150_000
    policy = first.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "//" not in first.text.replace("<!doctype html>", "")


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:8081", 200), ("localhost:8081", 200), ("localhost", 200), ("evil.example", 421),
     ("127.0.0.1.evil.example:8081", 421), ("10.0.0.5:8081", 421)],
)  # fmt: skip
async def test_only_local_host_names_are_answered(page: httpx.AsyncClient, host: str, status: int) -> None:
    """Another host name that resolves to this machine is refused, so a foreign page cannot read anything."""
    for path in ("/_dashboard", "/_dashboard/state", "/metrics"):
        assert (await page.get(path, headers={"host": host})).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (JSON, 200),
        ({"content-type": "application/json; charset=utf-8", "origin": "http://127.0.0.1:8081"}, 200),
        ({**JSON, "sec-fetch-site": "same-origin"}, 200),
        ({}, 403),
        ({"content-type": "text/plain"}, 403),
        ({**JSON, "origin": "http://evil.example"}, 403),
        ({**JSON, "origin": "http://127.0.0.1:9999"}, 403),
        ({**JSON, "origin": "null"}, 403),
        ({**JSON, "sec-fetch-site": "cross-site"}, 403),
        ({**JSON, "sec-fetch-site": "same-site"}, 403),
    ],
)
async def test_requests_must_come_from_the_page(
    page: httpx.AsyncClient, platform: FakePlatform, headers: dict[str, str], status: int
) -> None:
    """A form or script of another site cannot send a request to the pipeline."""
    answer = await page.post("/_dashboard/request", content=b"{}", headers=headers)
    assert answer.status_code == status
    assert len(platform.asked) == (status == 200)


async def test_an_answer_includes_its_receipt(page: httpx.AsyncClient, platform: FakePlatform) -> None:
    """The request is passed on unchanged, and its status, body and receipt are returned."""
    answer = await page.post("/_dashboard/request", json={"user_id": "user_42"})
    (asked,) = platform.asked
    assert (str(asked.url), asked.content) == ("http://127.0.0.1:2", b'{"user_id":"user_42"}')
    shown = answer.json()
    assert (shown["status"], shown["body"], shown["receipt"]) == (200, ANSWER, "total;dur=1.5")
    assert shown["took_ms"] > 0


async def test_every_kind_of_answer_is_shown(page: httpx.AsyncClient, platform: FakePlatform) -> None:
    """The page shows a refusal that is not JSON and a missing answer, and refuses a body that is too long."""
    platform.door = httpx.Response(503, text="no revision is ready")
    shown = (await page.post("/_dashboard/request", json={})).json()
    assert (shown["status"], shown["body"], shown["receipt"]) == (503, "no revision is ready", "")
    platform.door = httpx.Response(599)
    assert (await page.post("/_dashboard/request", json={})).json() == {
        "error": "no answer: ConnectError", "titles": {}
    }  # fmt: skip
    assert (await page.post("/_dashboard/request", json={"user_id": "x" * 70_000})).status_code == 413


async def test_observations_are_shared(platform: FakePlatform) -> None:
    """Several readers share one observation, and rates compare two observations from within the window."""
    seconds = 100.0
    recent = SnapshotHistory(Watcher(platform.ask, platform.scrape, clock=lambda: seconds))
    first, second = await recent.window(), await recent.window()
    assert first == second
    assert first[0] is first[1]
    assert platform.looks == 1
    seconds = 103.0
    before, now = await recent.window()
    assert (platform.looks, before.at, now.at) == (2, 100.0, 103.0)
    seconds = 112.0
    before, now = await recent.window()
    assert (platform.looks, before.at, now.at) == (3, 103.0, 112.0)


@pytest.mark.parametrize("query", ["", "?minutes=5", "?minutes=1440&after=1800000000.5"])
async def test_ranges_are_served(page: httpx.AsyncClient, query: str) -> None:
    """A range is served for each length that the page offers, also while the platform is stopped."""
    answer = await page.get(f"/_dashboard/history{query}")
    assert (answer.status_code, answer.json()["services"]) == (200, {})


@pytest.mark.parametrize("query", ["minutes=7", "minutes=x", "minutes=", "after=x", "after=nan", "after=inf"])
async def test_an_unknown_range_is_refused(page: httpx.AsyncClient, query: str) -> None:
    """A length that the page does not offer and a time that is not a number are refused with the reason."""
    answer = await page.get(f"/_dashboard/history?{query}")
    assert answer.status_code == 422
    assert "minutes must be one of 5, 15, 60, 360, 1440" in answer.json()["detail"]


async def test_the_model_card_comes_from_the_artefact(
    page: httpx.AsyncClient, platform: FakePlatform, model: Path
) -> None:
    """The page shows the state directory, the configured artefact with its choice, and the models that are loaded."""
    info = 'recsys_model_info{name="ials",version="%s"} 1\nrecsys_model_age_seconds %d\n'
    platform.exposed = {20_001: info % ("2d90", 60), 20_002: info % ("0000", 90)}
    about = (await page.get("/_dashboard/about")).json()
    assert about["state_dir"] == str(model.parent)
    assert about["model"] == {
        "name": "ials", "version": "2d90", "metrics": {}, "dataset": "demo", "users": 3, "items": 2, "ties": 4,
        "choice": [CHOICE], "place": str(model),
    }  # fmt: skip
    assert about["in_use"] == [
        {"name": "ials", "version": "2d90", "instances": 1, "age_s": 60},
        {"name": "ials", "version": "0000", "instances": 1, "age_s": 90},
    ]
    write_artefact(model, version="a-longer-version")
    os.utime(model / "manifest.json", (1, 1))
    assert (await page.get("/_dashboard/about")).json()["model"]["version"] == "a-longer-version"


async def test_a_model_of_an_object_store_is_shown_as_the_instances_report_it(
    page: httpx.AsyncClient, platform: FakePlatform
) -> None:
    """The dashboard has no access to the store, so it answers with the place and with the models that are loaded."""
    platform.answers["services"] = [service_object("s3://models/shop")]
    platform.exposed = {20_001: 'recsys_model_info{name="ials",version="2d90"} 1\nrecsys_model_age_seconds 60\n'}
    about = (await page.get("/_dashboard/about")).json()
    assert about["model"] == {"place": "s3://models/shop"}
    assert about["in_use"] == [{"name": "ials", "version": "2d90", "instances": 1, "age_s": 60}]
    found = (await page.get("/_dashboard/items?q=a")).json()
    assert (found["total"], found["problem"]) == (
        0, "the catalogue is not shown: the page cannot read the model in s3://models/shop"
    )  # fmt: skip


async def test_what_is_tried_is_served(page: httpx.AsyncClient, platform: FakePlatform) -> None:
    """The endpoint answers with experiments, shadow and rollouts, and with 503 if the platform has stopped."""
    platform.answers["services"] = [service_object("x")]
    assert (await page.get("/_dashboard/changes")).json() == {
        "experiments": [], "shadow": None, "rollouts": {"running": [], "ended": []}
    }  # fmt: skip
    platform.answers["services"] = PlatformError("nothing is running in there")
    assert (await page.get("/_dashboard/changes")).status_code == 503


@pytest.mark.parametrize("content", [None, "", "[]", "{", "null", " " * (4 * 2**20 + 1)])
async def test_a_missing_or_damaged_artefact_is_no_error(
    page: httpx.AsyncClient, platform: FakePlatform, tmp_path: Path, content: str | None
) -> None:
    """Without a readable artefact the card and the catalogue are empty."""
    platform.answers["services"] = [service_object(str(tmp_path))]
    for name in ("manifest.json", "items.json"):
        if content is not None:
            (tmp_path / name).write_text(content)
    assert (await page.get("/_dashboard/about")).json()["model"] == {"place": str(tmp_path)}
    assert (await page.get("/_dashboard/items")).json() == {"total": 0, "items": []}


@pytest.mark.parametrize(("query", "found"), [("", 2), ("crown", 1), ("war", 1), ("NORTH", 1), ("zzz", 0)])
@pytest.mark.usefixtures("model")
async def test_the_catalogue_is_searched(page: httpx.AsyncClient, query: str, found: int) -> None:
    """Items are found by a part of their id, title or any attribute, in either case."""
    answer = (await page.get("/_dashboard/items", params={"q": query})).json()
    assert (answer["total"], len(answer["items"])) == (found, found)
    crowns = [{"item_id": "a", "title": "The Crown", "values": ["Fantasy", "War", "North"]}]
    assert [each for each in answer["items"] if each["item_id"] == "a"] == crowns * (query != "zzz")


async def test_an_item_is_looked_at(page: httpx.AsyncClient, platform: FakePlatform) -> None:
    """rank_items describes the item, and a request of another site is refused."""
    platform.status = status(**{"rank-items": service(revision("rank-items-00001", "ready"))})
    assert (await page.post("/_dashboard/item", json={"item_id": "a"})).json()["body"] == ANSWER
    assert json.loads(platform.asked[-1].content)["item_id"] == "a"
    assert (await page.post("/_dashboard/item", content=b"{}")).status_code == 403


@pytest.mark.usefixtures("model")
async def test_recommendations_have_titles(page: httpx.AsyncClient, platform: FakePlatform) -> None:
    """The titles of recommended items come from the artefact; an item without one has none."""
    platform.door = httpx.Response(200, json={"recommendations": [{"item_id": "a"}, {"item_id": "x"}, {"item_id": []}]})
    assert (await page.post("/_dashboard/request", json={})).json()["titles"] == {"a": "The Crown"}


@pytest.mark.usefixtures("model")
async def test_a_user_is_looked_up_with_titles(page: httpx.AsyncClient, platform: FakePlatform) -> None:
    """The page of a user has the titles of history and recommendations, and refuses other bodies with the reason."""
    ready = revision("x-00001", "ready")
    platform.status = status(recommend=service(ready), extract_features=service(ready), rank_items=service(ready))
    found = (await page.post("/_dashboard/user", json={"user_id": "u"})).json()
    assert (found["recommended"]["body"], found["titles"]) == (ANSWER, {"a": "The Crown"})
    bodies: list[Any] = [{"user_id": 7}, {"added": []}, []]
    for body in bodies:
        refused = await page.post("/_dashboard/user", json=body)
        assert (refused.status_code, "must be" in refused.json()["errors"][0]["detail"]) == (422, True)
    assert (await page.post("/_dashboard/user", content=b"{}")).status_code == 403


async def test_dead_letters_are_shown_and_redriven(page: httpx.AsyncClient, platform: FakePlatform) -> None:
    """The page shows the broker's figures, and passes on which dead letter to deliver again."""
    platform.answers |= {"events": {"triggers": {}, "dead_letters": []}, "redrive": {"redriven": 1, "unknown": []}}
    assert (await page.get("/_dashboard/events")).json() == {"triggers": {}, "dead_letters": []}
    choice = {"trigger": "default/t", "ids": ["1"], "source": "/s"}
    answer = await page.post("/_dashboard/redrive", json=choice | {"verb": "stop"})
    assert answer.json()["redriven"] == 1
    assert platform.called[-1] == ("redrive", choice)


async def test_a_platform_without_a_broker_has_no_triggers(page: httpx.AsyncClient, platform: FakePlatform) -> None:
    """The reason is part of the answer, and a redrive says why nothing was delivered."""
    platform.answers |= {"events": RefusedError("no Broker"), "redrive": RefusedError("no Broker")}
    assert (await page.get("/_dashboard/events")).json() == {
        "triggers": {}, "dead_letters": [], "problem": "no Broker"
    }  # fmt: skip
    assert (await page.post("/_dashboard/redrive", json={})).json() == {"redriven": 0, "problem": "no Broker"}


@pytest.mark.parametrize(("headers", "body", "status"), [
    (JSON, b"[]", 422), (JSON, b"{", 400), (JSON, b'{"ids": 5}', 422), (JSON, b'{"ids": [[]]}', 422),
    (JSON, b'{"trigger": []}', 422), (JSON, b'{"a":' * 5_000, 400),
    ({"content-type": "text/plain"}, b"{}", 403), ({**JSON, "origin": "http://evil.example"}, b"{}", 403),
])  # fmt: skip
async def test_a_redrive_must_come_from_the_page(
    page: httpx.AsyncClient, platform: FakePlatform, headers: dict[str, str], body: bytes, status: int
) -> None:
    """Another site cannot start deliveries, and a body that does not choose dead letters is refused."""
    answer = await page.post("/_dashboard/redrive", content=body, headers=headers)
    assert (answer.status_code, platform.called) == (status, [])


async def test_logs_are_shown_by_instance(page: httpx.AsyncClient, tmp_path: Path) -> None:
    """The newest lines of a log come with their levels, and every log with its number of errors."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/a-1.log").write_text(
        '{"level": "info", "event": "error_free"}\n{"level": "error"}\nTraceback (most recent call last):\nx'
    )
    (tmp_path / "logs/b-1.log").write_text("y" * 70_000 + "\n" + "z\n" * 200)
    shown = (await page.get("/_dashboard/logs?name=a-1")).json()
    assert [line["level"] for line in shown["lines"]] == ["INFO", "ERROR", "TRACEBACK", ""]
    assert shown["logs"] == [{"name": "a-1", "errors": 2}, {"name": "b-1", "errors": 0}]
    assert [line["text"] for line in (await page.get("/_dashboard/logs?name=b-1")).json()["lines"]] == ["z"] * 100
    assert (await page.get("/_dashboard/logs?name=../../etc/passwd")).json()["lines"] == []
