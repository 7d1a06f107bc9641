"""The metrics of the three functions while they serve."""

import json
import socket
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from localkn.processes import free_port
from offline.training import MODEL_NAME
from recsys.metrics import DEFINITIONS, DEGRADED, STORE_DURATION
from tests.demo import DemoState
from tests.running import CLIENT, running
from tests.waiting import eventually

pytestmark = pytest.mark.may_block


def scrape(port: int) -> dict[str, dict[tuple[str, ...], float]]:
    text = CLIENT.get(f"http://127.0.0.1:{port}/metrics").text
    scraped: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            scraped.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return scraped


def experiment_at(url: str) -> str:
    """Return the setting of an experiment whose second arm is ranked at *url*."""
    arms = [{"name": "control", "share": 0.5}, {"name": "other", "share": 0.5, "url": url}]
    return json.dumps([{"name": "ranker", "salt": "1", "arms": arms}])


def test_every_metric_is_exposed(demo_state: DemoState, tmp_path):
    """After some traffic the functions together expose every defined metric, each on its own metrics port."""
    ports = [free_port() for _ in range(3)]
    env = [{"METRICS_PORT": str(port)} for port in ports]
    store = tmp_path / "store.db"
    store.write_bytes(Path(demo_state.store_url.removeprefix("sqlite:///")).read_bytes())
    with (
        running("extract_features", {**env[0], "FEATURE_STORE_URL": f"sqlite:///{store}", "EXPOSURES": "on"}) as features,
        running("rank_items", {**env[1], "MODEL_PATH": str(demo_state.model_path)}) as ranking,
        running(
            "recommend",
            {**env[2], "EXPERIMENTS": experiment_at(ranking.url), "EXTRACT_FEATURES_URL": features.url, "RANK_ITEMS_URL": ranking.url,
             "SHADOW_RANK_ITEMS_URL": ranking.url, "SHADOW_SHARE": "1", "K_SINK": f"http://127.0.0.1:{free_port()}"},
        ) as recommend,
    ):  # fmt: skip
        for number in range(5):
            assert recommend.post({"user_id": f"user_{number}"}).status_code == 200
        assert recommend.post({"user_id": 5}).status_code == 422
        eventually(lambda: scrape(ports[2])["recsys_shadow_calls_total"][("compared",)] > 0)
        event = {"ce-id": "1", "ce-source": "/s", "ce-specversion": "1.0", "ce-type": "dev.recsys.interaction.v1"}
        data = {"user_id": "user_1", "kind": "view", "item_id": "item_1", "exposure_id": "x1"}
        assert features.post(data, **event).status_code == 202
        assert features.post(data, **event).status_code == 202
        assert features.post({}, **{**event, "ce-id": "2"}).status_code == 422
        public = CLIENT.get(recommend.url + "/metrics")
        assert public.status_code == 404
        extract, rank, front = (scrape(port) for port in ports)
        ranking.process.kill()
        ranking.process.wait()
        assert recommend.post({"user_id": "user_1"}).json()["degraded"] == ["ranking"]
        after = scrape(ports[2])
    assert front["recsys_requests_total"] == {("200",): 5, ("422",): 1}
    known = {("internal",): 0, ("overloaded",): 0}
    assert front["recsys_errors_total"] == {**known, ("invalid-request",): 1, ("not-found",): 1}
    assert front["recsys_request_duration_seconds_count"][()] == 6
    assert front["recsys_hop_calls_total"][("rank_items", "ok")] >= 5
    assert rank["recsys_batch_size_count"][()] >= 5
    assert rank["recsys_model_info"].keys() == {(MODEL_NAME, demo_state.model_path.name.partition("-")[2])}
    assert extract["recsys_events_total"] == {
        ("accepted",): 1,
        ("repeated",): 1,
        ("erased",): 0,
        ("rejected",): 1,
    }
    assert extract["recsys_exposures_total"] == {("accepted",): 0, ("repeated",): 0, ("erased",): 0}
    assert extract["recsys_exposure_actions_total"] == {("view",): 1}
    assert extract["recsys_store_duration_seconds_count"].keys() == {("read",), ("apply",)}
    assert 0.1 < rank["recsys_start_duration_seconds"][()] < 30
    assert after["recsys_degraded_total"] == {("features",): 0, ("ranking",): 1}
    exposed = {name for scraped in (extract, rank, after) for name in scraped}
    for definition in DEFINITIONS:
        wanted = definition.name + ("_count" if definition.kind == "histogram" else "")
        assert wanted in exposed, wanted


def test_a_taken_metrics_port_is_logged():
    """An instance whose metrics port is taken serves without metrics and logs a warning."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        env = {"FEATURE_STORE_URL": "memory:", "METRICS_PORT": str(taken.getsockname()[1])}
        with running("extract_features", env) as service:
            assert service.post({"user_id": "a"}).status_code == 200
            assert "metrics_port_taken" in service.log()


def test_the_fused_function_exposes_the_metrics_of_all_three(demo_state: DemoState):
    """One metrics port has the store's, the model's and the recommender's metrics, and names each metric once."""
    port = free_port()
    env = {
        "FEATURE_STORE_URL": demo_state.store_url,
        "MODEL_PATH": str(demo_state.model_path),
        "METRICS_PORT": str(port),
    }
    with running("fused", env) as fused:
        assert fused.post({"user_id": "user_1"}).status_code == 200
        families = list(text_string_to_metric_families(CLIENT.get(f"http://127.0.0.1:{port}/metrics").text))
    samples = {sample.name: sample.value for family in families for sample in family.samples}
    assert len({family.name for family in families}) == len(families)
    assert samples[f"{STORE_DURATION.name}_count"] >= 1
    assert samples["recsys_batch_size_count"] >= 1
    assert DEGRADED.name in samples
    queues = {sample.labels["queue"] for f in families if f.name == "recsys_queue_depth" for sample in f.samples}
    assert queues == {"hop", "ingest", "ranking"}
