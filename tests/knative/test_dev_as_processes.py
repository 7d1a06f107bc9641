"""
overlays/dev without a cluster: its Redis, its job and its functions as local processes.

Each process gets the command and the environment of its manifest. This shows that they start and work together, which a
check of the YAML cannot.
"""

import base64
import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from localkn.processes import free_port
from offline.seed import main as seed
from recsys.contracts import events
from tests.knative.objects import Object, container, overlay, services
from tests.offline.api_server import ApiServer
from tests.programs import needs_redis
from tests.running import Running, running
from tests.waiting import eventually

pytestmark = [needs_redis, pytest.mark.scenario, pytest.mark.may_block, pytest.mark.timeout(120)]

NAMES = {"extract-features": "extract_features", "rank-items": "rank_items", "recommend": "recommend"}


def pod(objects: list[Object], kind: str, name: str) -> Object:
    """Return the one container of a workload."""
    (body,) = [each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    (found,) = body["spec"]["template"]["spec"]["containers"]
    return found  # type: ignore[no-any-return]


def environment(container: Object, objects: list[Object]) -> dict[str, str]:
    """Return the environment that the kubelet would set, including Secrets."""
    named = {(body["kind"], body["metadata"]["name"]): body.get("data") or {} for body in objects}
    found: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        found |= named["ConfigMap", source["configMapRef"]["name"]]
    for entry in container.get("env") or ():
        reference = entry.get("valueFrom", {}).get("secretKeyRef")
        secret = named["Secret", reference["name"]][reference["key"]] if reference else ""
        found[entry["name"]] = base64.b64decode(secret).decode() if reference else entry["value"]
    return found


def mount(folder: Path, data: dict[str, str]) -> Path:
    """Mount a ConfigMap like the kubelet: every file is a link into a directory that is replaced as a whole."""
    content = folder / "..2026_11_22_12_00_00.1"
    content.mkdir(parents=True)
    (folder / "..data").symlink_to(content.name)
    for name, encoded in data.items():
        (content / name).write_bytes(base64.b64decode(encoded))
        (folder / name).symlink_to(f"..data/{name}")
    return folder


@dataclass
class Cluster:
    """The running functions."""

    functions: dict[str, Running]

    def recommend(self, user_id: str, top_k: int = 5) -> dict[str, Any]:
        answer = self.functions["recommend"].post({"user_id": user_id, "top_k": top_k})
        assert answer.status_code == 200, answer.text
        return answer.json()  # type: ignore[no-any-return]

    def deliver(self, service: str, type_: str, data: object, *, event_id: str) -> httpx.Response:
        """Send an event as a Broker's Trigger does: in binary mode, with a reply wanted and without a token."""
        headers = {
            "ce-specversion": "1.0", "ce-id": event_id, "ce-source": "/test", "ce-type": type_, "prefer": "reply",
            "ce-knativearrivaltime": "2026-08-01T00:00:00Z", "content-type": "application/json",
        }  # fmt: skip
        return self.functions[service].post(data, **headers)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Start everything in an unfavourable order: a function before its store, and the store before it is filled."""
    objects, folder, port = overlay("dev"), tmp_path_factory.mktemp("dev"), free_port()
    found = services(objects)

    def told(name: str, **changes: str) -> dict[str, str]:
        given = environment(container(found[name]), objects)
        assert changes.keys() <= given.keys()
        # All processes share the ports and the files of one machine.
        return {**given, "METRICS_PORT": "0", **changes}

    store_url = environment(container(found["extract-features"]), objects)["FEATURE_STORE_URL"]
    (store,) = [b for b in objects if (b["apiVersion"], b["kind"]) == ("v1", "Service")]
    assert store_url == f"redis://{store['metadata']['name']}:{store['spec']['ports'][0]['port']}/0"
    store_url = f"redis://127.0.0.1:{port}/0"
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        early = running("extract_features", told("extract-features", FEATURE_STORE_URL=store_url))
        starting = pool.submit(stack.enter_context, early)
        redis = pod(objects, "StatefulSet", "feature-store")
        password = environment(redis, objects)["REDISCLI_AUTH"]
        (folder / "data").mkdir()
        words = [*redis["command"], *redis["args"], "--port", str(port), "--bind", "127.0.0.1"]
        words = [word.replace("$(REDISCLI_AUTH)", password).replace("/data", str(folder / "data")) for word in words]
        process = stack.enter_context(subprocess.Popen(words, stdout=subprocess.DEVNULL))
        stack.callback(process.kill)
        features = starting.result()
        model = _seed(pod(objects, "Deployment", "seed-demo"), objects, store_url)
        ranking = stack.enter_context(
            running("rank_items", told("rank-items", MODEL_PATH=str(mount(folder / "models", model))))
        )
        urls = {"EXTRACT_FEATURES_URL": features.url, "RANK_ITEMS_URL": ranking.url}
        popular = str(folder / "popular.json")
        recommend = stack.enter_context(running("recommend", told("recommend", POPULAR_LIST_PATH=popular, **urls)))
        yield Cluster({"extract-features": features, "rank-items": ranking, "recommend": recommend})


def _seed(job: Object, objects: list[Object], store_url: str) -> dict[str, str]:
    """Run the pod's command once and return the ConfigMap that it creates and rank-items mounts."""
    assert job["command"][:3] == ["python", "-m", "offline.seed"]
    ranker = services(objects)["rank-items"]["spec"]["template"]["spec"]
    (wanted,) = [volume["configMap"]["name"] for volume in ranker["volumes"] if "configMap" in volume]
    with ApiServer() as api, pytest.MonkeyPatch.context() as patch:
        patch.setattr("offline.publication.ClusterAccess.own", lambda: api.cluster)
        words = job["command"][3 : job["command"].index("--every")]
        assert seed(words, env={**environment(job, objects), "FEATURE_STORE_URL": store_url}) == 0
        return api.maps[wanted]["binaryData"]  # type: ignore[no-any-return]


def test_the_pipeline_answers(cluster):
    """The answer is a ranking, not the fallback."""
    answer = cluster.recommend("user_42")
    assert len(answer["recommendations"]) == 5
    assert not answer.get("degraded")


def test_an_interaction_changes_the_next_answer(cluster):
    """An event delivered like a Trigger's gets an empty 202, and its item is not recommended again."""
    first = cluster.recommend("user_7")["recommendations"][0]["item_id"]
    data = {"user_id": "user_7", "item_id": first, "kind": "purchase", "time": "2026-08-01T00:00:00Z"}
    answer = cluster.deliver("extract-features", events.INTERACTION, data, event_id="1")
    assert (answer.status_code, answer.content) == (202, b"")
    assert first not in {each["item_id"] for each in cluster.recommend("user_7", 50)["recommendations"]}


def test_a_request_event_gets_a_reply_event(cluster):
    """The reply is a 200 with ce- headers and a type that no Trigger matches."""
    answer = cluster.deliver("recommend", events.REQUESTED, {"user_id": "user_8", "top_k": 3}, event_id="2")
    assert (answer.status_code, answer.headers["ce-type"]) == (200, events.COMPLETED)
    assert len(answer.json()["recommendations"]) == 3
    taken = [body["spec"]["filters"] for body in overlay("dev") if body["kind"] == "Trigger"]
    assert events.COMPLETED not in json.dumps(taken)


def test_unknown_users_get_the_populations_features(cluster):
    """An instance that started before the store was filled also returns the population's features."""
    features = cluster.functions["extract-features"]

    def purchases() -> int:
        answer = features.post({"user_id": "nobody knows them"}).json()
        assert answer["cold_start"]
        return int(answer["features"]["total_purchases"])

    eventually(lambda: purchases() > 0)
