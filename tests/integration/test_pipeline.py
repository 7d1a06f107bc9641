"""The three functions as processes over real sockets, with the demo data."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from chassis.receipt import parse_receipt
from offline.demo import Demo
from recsys.contracts import events
from tests.integration.conftest import start_pipeline
from tests.running import CLIENT, Running, running
from tests.waiting import LIMIT_S
from tools.cli.verbs import main

pytestmark = pytest.mark.may_block


@pytest.fixture(scope="module")
def history(demo: Demo) -> dict[str, set[str]]:
    """Return the items that each user has consumed."""
    return {record.user_id: {item.item_id for item in record.history} for record in demo.records}


@pytest.fixture(scope="module")
def genre(demo: Demo) -> dict[str, str]:
    """Return the genre of each item."""
    return {item.item_id: item.category for item in demo.items}


def ask(url: str, user_id: str, **more: object) -> list[dict[str, object]]:
    answer = CLIENT.post(url, json={"user_id": user_id, **more})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["recommendations"])


def test_the_answer_has_the_documented_shape(pipeline, history):
    """The answer has five items by default, best first, with scores of three decimals and none of the history."""
    answer = CLIENT.post(pipeline.recommend.url, json={"user_id": "user_42"})
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert list(body)[:2] == ["user_id", "recommendations"]
    assert body["user_id"] == "user_42"
    scores = [each["score"] for each in body["recommendations"]]
    assert len(scores) == 5
    assert scores == sorted(scores, reverse=True)
    assert all(score == round(score, 3) for score in scores)
    assert not {each["item_id"] for each in body["recommendations"]} & history["user_42"]


def test_recommendations_match_the_users_taste(pipeline, demo, genre):
    """Most of a user's recommendations are of the genre that the demo data planted."""
    users = [f"user_{number}" for number in range(1, 101)]
    shares = []
    for user in users:
        shown = [genre[str(each["item_id"])] for each in ask(pipeline.recommend.url, user, top_k=5)]
        shares.append(shown.count(demo.tastes[user]) / len(shown))
    assert sum(shares) / len(shares) > 0.75
    assert sum(share >= 0.6 for share in shares) >= 85


def test_consumed_and_excluded_items_are_not_recommended(pipeline, history):
    """Items of the history and excluded items do not appear, even in a list of a hundred."""
    first = [str(each["item_id"]) for each in ask(pipeline.recommend.url, "user_7", top_k=100)]
    assert len(set(first)) == 100
    assert not set(first) & history["user_7"]
    second = [str(each["item_id"]) for each in ask(pipeline.recommend.url, "user_7", top_k=50, exclude=first[:50])]
    assert second == first[50:]


def test_unknown_users_get_one_list_of_popular_items(pipeline, history, genre):
    """All unknown users get the same list, and its items are among the most popular quarter."""
    lists = [ask(pipeline.recommend.url, user, top_k=20) for user in ("nobody", "Ω", "user_0")]
    assert lists[0] == lists[1] == lists[2]
    audience = {item: sum(item in consumed for consumed in history.values()) for item in genre}
    shown = [audience[str(each["item_id"])] for each in lists[0]]
    assert min(shown) >= sorted(audience.values())[-len(audience) // 4]


def test_answers_are_deterministic(pipeline, demo_state):
    """Repeated calls, concurrent calls and a second pipeline on the same state give equal bytes."""
    users = [f"user_{number}" for number in range(1, 41)]

    def bodies(url: str) -> list[bytes]:
        return [CLIENT.post(url, json={"user_id": user, "top_k": 20}).content for user in users]

    alone = bodies(pipeline.recommend.url)
    with ThreadPoolExecutor(10) as pool:
        crowded = list(
            pool.map(lambda u: CLIENT.post(pipeline.recommend.url, json={"user_id": u, "top_k": 20}).content, users)
        )
    with start_pipeline(demo_state) as second:
        elsewhere = bodies(second.recommend.url)
    assert alone == bodies(pipeline.recommend.url) == crowded == elsewhere


def test_a_batch_equals_single_requests(pipeline):
    """Each request of a batch gets the same answer as alone, and an invalid one fails alone."""
    requests = [{"user_id": "user_1"}, {"user_id": "user_2", "top_k": 0}, {"user_id": "nobody", "top_k": 3}]
    results = CLIENT.post(pipeline.recommend.url, json={"requests": requests}).json()["results"]
    assert results[0]["recommendations"] == ask(pipeline.recommend.url, "user_1")
    assert results[1]["error"]["status"] == 422
    assert results[2]["recommendations"] == ask(pipeline.recommend.url, "nobody", top_k=3)


def test_simultaneous_large_batches_are_all_ranked(pipeline):
    """Several callers with batches of the maximum size, together with single requests, all get a ranking."""
    batch = {"requests": [{"user_id": f"user_{number}"} for number in range(256)]}
    bodies = [batch, batch, {"user_id": "user_1"}, batch, batch, {"user_id": "user_2"}] * 2
    with ThreadPoolExecutor(len(bodies)) as pool:
        answers = pool.map(
            lambda body: pipeline.recommend.post(body, **{"x-request-timeout-ms": "8000"}).json(), bodies
        )
        results = [each for answer in answers for each in answer.get("results", [answer])]
    assert len(results) == 8 * 256 + 4
    assert [each for each in results if "recommendations" not in each or "degraded" in each] == []


def test_simultaneous_long_requests_are_all_ranked(pipeline):
    """Callers with the longest possible exclusions, and a short request among them, all get a ranking."""
    exclude = ["\U0001f600" * 125 + f"{number:03}" for number in range(1000)]
    long = json.dumps({"user_id": "user_1", "exclude": exclude}, ensure_ascii=False).encode()
    bodies = [long, long, b'{"user_id":"user_2"}', long, long] * 8

    def recommend(body: bytes) -> list[dict[str, object]]:
        # Without certificate authorities, a client costs 1 ms instead of 50 ms.
        with httpx.Client(headers={"x-request-timeout-ms": "9000"}, timeout=LIMIT_S, verify=False) as client:
            return [client.post(pipeline.recommend.url, content=body).json() for _ in range(3)]

    with ThreadPoolExecutor(len(bodies)) as pool:
        answers = [each for many in pool.map(recommend, bodies) for each in many]
    assert [each for each in answers if "recommendations" not in each or "degraded" in each] == []


def test_the_tutorials_client_works(pipeline):
    """The tutorial's client runs unchanged: ten workers post JSON for a hundred users and read two fields."""

    def recommend(number: int) -> bool:
        answer = CLIENT.post(pipeline.recommend.url, json={"user_id": f"user_{number}", "top_k": 5})
        answer.raise_for_status()
        return all({"item_id", "score"} <= each.keys() for each in answer.json()["recommendations"])

    with ThreadPoolExecutor(max_workers=10) as pool:
        assert all(pool.map(recommend, range(100)))


def test_a_receipt_names_the_revision_and_the_batch(pipeline):
    """The receipt of rank_items contains its phases, the batch size and the revision."""
    answer = pipeline.rank_items.post(RANK)
    durations, facts = parse_receipt(answer.headers["server-timing"])
    assert {"fill", "slot", "model", "total"} <= durations.keys()
    assert facts["batch"] == "1"
    assert facts["rev"] == "rank-items"


FEATURES = {"age_group": "25-34", "avg_session_duration": 1.5, "total_purchases": 2, "engagement_score": 0.5}
RANK = {"features": FEATURES, "history": ["item_1"]}
GOOD = {"recommend": {"user_id": "user_1"}, "extract_features": {"user_id": "user_1"}, "rank_items": RANK}

BAD = [
    # function, body, status, paths of the faults
    ("recommend", b"", 400, None),
    ("recommend", b"[" * 100_000, 422, ["$"]),
    ("recommend", b"[1,2]", 422, ["$"]),
    ("recommend", b"{}", 422, ["$.user_id"]),
    ("recommend", b'{"user_id":7,"top_k":true,"x":1}', 422, ["$.user_id", "$.top_k", "$.x"]),
    *(("recommend", b'{"user_id":"a","top_k":%s}' % each, 422, ["$.top_k"]) for each in (b"0", b"101")),
    ("recommend", b'{"user_id":"%s"}' % (b"x" * 129), 422, ["$.user_id"]),
    ("recommend", b'{"user_id":"a","exclude":["b",1,""]}', 422, ["$.exclude[1]", "$.exclude[2]"]),
    ("recommend", b'{"user_id":"a","exclude":%s}' % json.dumps(["x"] * 1001).encode(), 422, ["$.exclude"]),
    ("recommend", b'{"requests":[]}', 422, ["$.requests"]),
    ("recommend", b'{"requests":%s}' % json.dumps([{}] * 257).encode(), 422, ["$.requests"]),
    ("recommend", b'{"user_id":"%s"}' % (b"x" * 1_000_000), 413, None),
    ("extract_features", b'{"user_id":null}', 422, ["$.user_id"]),
    ("extract_features", b'{"user_ids":[1,"a",""]}', 422, ["$.user_ids[0]", "$.user_ids[2]"]),
    ("rank_items", b'{"history":[]}', 422, ["$.features"]),
    ("rank_items", json.dumps({**RANK, "features": {**FEATURES, "engagement_score": 2, "total_purchases": -1}}).encode(),
     422, ["$.features.total_purchases", "$.features.engagement_score"]),
    ("rank_items", json.dumps({**RANK, "history": ["a"] * 1001}).encode(), 422, ["$.history"]),
]  # fmt: skip


@pytest.mark.parametrize(("door", "body", "status", "paths"), BAD)
def test_invalid_requests_get_a_status_and_every_fault(pipeline, door, body, status, paths):
    """Each kind of invalid request gets its status and a problem document, and the function continues to serve."""
    service = getattr(pipeline, door)
    answer = CLIENT.post(service.url, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert paths is None or [fault["path"] for fault in problem["errors"]] == paths
    assert service.post(GOOD[door]).status_code == 200


def test_the_fused_function_gives_the_same_bytes(pipeline, demo_state):
    """The three functions in one process give the same bytes as three processes, including errors."""
    env = {"FEATURE_STORE_URL": demo_state.store_url, "MODEL_PATH": str(demo_state.model_path)}
    bodies: list[object] = [{"user_id": f"user_{number}", "top_k": 10} for number in range(1, 30)]
    bodies += [{"user_id": "nobody"}, {"user_id": 1, "x": 2}, []]
    bodies.append({"requests": [{"user_id": "user_1"}, {}, {"user_id": "user_2", "exclude": ["item_1"]}]})
    with running("fused", env) as fused:
        for body in bodies:
            theirs, ours = pipeline.recommend.post(body), fused.post(body)
            assert (ours.status_code, ours.content) == (theirs.status_code, theirs.content)
            assert ours.headers["content-type"] == theirs.headers["content-type"]


def test_the_fused_function_accepts_interactions(demo_state, tmp_path):
    """An interaction event leads to other recommendations. A request event gets its reply, also beside interactions."""
    store = shutil.copy(demo_state.store_url.removeprefix("sqlite:///"), tmp_path)
    env = {"FEATURE_STORE_URL": f"sqlite:///{store}", "MODEL_PATH": str(demo_state.model_path)}

    def event(type_: str, data: object, **attributes: str) -> dict[str, object]:
        return {"specversion": "1.0", "id": "1", "source": "/test", "type": type_, "data": data, **attributes}

    def send(event: object, *, format_: str = "") -> httpx.Response:
        content_type = f"application/cloudevents{format_}+json"
        return CLIENT.post(fused.url, json=event, headers={"content-type": content_type})

    with running("fused", env) as fused:
        before = ask(fused.url, "newcomer")
        click = {
            "user_id": "newcomer",
            "item_id": before[0]["item_id"],
            "kind": "click",
            "time": "2026-08-01T00:00:00Z",
        }
        asked = event(events.REQUESTED, {"user_id": "newcomer"})
        clicked = event(events.INTERACTION, click)
        assert send(clicked).status_code == 202
        after = ask(fused.url, "newcomer")
        assert before[0]["item_id"] not in {each["item_id"] for each in after}
        reply = send([clicked, asked], format_="-batch")
        assert send([clicked, event("other", {})], format_="-batch").status_code == 422
    assert (reply.status_code, reply.headers["ce-type"]) == (200, events.COMPLETED)
    assert reply.json()["recommendations"] == after


def test_exported_lists_are_the_bytes_of_the_answers(pipeline, demo_state, tmp_path):
    """Each line of the file is the answer of recommend, for users all over the store."""
    target = tmp_path / "lists.jsonl"
    recommend: Running = pipeline.recommend
    assert main(["export", "--top-k", "7", "--to", str(target), "--state-dir", str(demo_state.folder)]) == 0
    lines = target.read_bytes().splitlines()
    assert len(lines) == 1000
    for line in lines[::50]:
        user = line.split(b'"')[3].decode()
        assert recommend.post({"user_id": user, "top_k": 7}).content == line
