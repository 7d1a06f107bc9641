"""The metrics of the three functions in one process."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from localkn.processes import free_port
from recsys import metrics
from tests.demo import DemoState
from tests.running import CLIENT, running

pytestmark = pytest.mark.may_block


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
    assert samples[f"{metrics.STORE_DURATION.name}_count"] >= 1
    assert samples["recsys_batch_size_count"] >= 1
    assert metrics.DEGRADED.name in samples
    queues = {sample.labels["queue"] for f in families if f.name == "recsys_queue_depth" for sample in f.samples}
    assert queues == {"hop", "ingest", "ranking"}
