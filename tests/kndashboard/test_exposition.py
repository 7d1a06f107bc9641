"""The combined metrics of a platform."""

from prometheus_client.parser import text_string_to_metric_families

from kndashboard import definitions
from kndashboard.exposition import expose
from tests.kndashboard.seen import POD, revision, service, snapshot, status

BUILD = '# TYPE recsys_build_info gauge\nrecsys_build_info{function="rank-items",revision="own"} 1\n'
COUNTED = "# HELP recsys_requests_total Answered.\n# TYPE recsys_requests_total counter\nrecsys_requests_total %d\n"


def samples(text: bytes) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def test_instances_are_distinguished_by_labels():
    """Each instance's metrics get the labels of its pod, and each family has one heading."""
    running = status(rank_items=service(revision("rank-items-00001", "ready", "ready", "starting")))
    text = expose(snapshot(0, running, {POD: COUNTED % 3 + BUILD, "rank-items-00001-2": COUNTED % 4}))
    found = samples(text)
    of = {"namespace": "default", "service": "rank-items", "revision": "rank-items-00001"}
    assert found["recsys_requests_total"] == [
        ({**of, "pod": POD}, 3), ({**of, "pod": "rank-items-00001-2"}, 4)
    ]  # fmt: skip
    assert found["recsys_build_info"] == [({**of, "pod": POD, "function": "rank-items", "revision": "own"}, 1)]
    assert text.count(b"# TYPE recsys_requests_total counter") == 1
    assert [value for _, value in found["localkn_instance_up"]] == [1, 1, 0]


def test_autoscaling_metrics_have_knatives_names():
    """Every autoscaling figure has the name and the labels that Knative's autoscaler gives it."""
    states = ("ready", "ready", "starting", "unready", "draining")
    by_rps = revision("front-00002", metric="rps", target=50.0, stable=8.0, panic=9.0, waiting=6, cold_start_s=1.25)
    found = samples(expose(snapshot(0, status(front=service(revision("front-00001", *states), by_rps)))))
    labels = {
        "k8s_namespace_name": "default", "kn_service_name": "front", "kn_configuration_name": "front",
        "kn_revision_name": "front-00001",
    }  # fmt: skip
    first = {name: {tuple(at.values()): value for at, value in each} for name, each in found.items()}
    key = tuple(labels[name] for name in found["kn_revision_pods_count"][0][0])
    assert found["kn_revision_pods_count"][0][0] == labels
    assert {name: values[key] for name, values in first.items() if key in values} == {
        "kn_revision_pods_desired": 7,
        "kn_revision_pods_requested": 2,
        "kn_revision_pods_count": 2,
        "kn_revision_pods_not_ready_count": 2,
        "kn_revision_pods_pending_count": 0,
        "kn_revision_pods_terminating_count": 1,
        "kn_revision_concurrency_stable": 1.5,
        "kn_revision_concurrency_panic": 2.25,
        "kn_revision_concurrency_target": 3,
        "kn_revision_capacity_excess": -1,
        "kn_revision_panic_mode": 1,
        "kn_revision_request_queued": 0,
        "localkn_revision_traffic_percent": 100,
    }
    assert [value for _, value in found["kn_revision_rps_target_per_second"]] == [50]
    assert len(found["kn_revision_concurrency_target"]) == 1
    assert set(found) == {definition.name for definition in definitions.DEFINITIONS}
