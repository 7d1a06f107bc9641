"""
Metrics of the local platform, under the names that Knative uses.

Source: Knative Serving's metrics reference, and pkg/autoscaler/scaling/metrics.go and
pkg/reconciler/autoscaling/kpa/metrics.go; OpenTelemetry's names as its Prometheus exporter writes them.
"""

from chassis.telemetry.definitions import Definition

# Labels that Knative's autoscaler sets for each revision, and that Prometheus sets for each pod.
REVISION_LABELS = ("k8s_namespace_name", "kn_service_name", "kn_configuration_name", "kn_revision_name")
POD_LABELS = ("namespace", "service", "revision", "pod")


def _of_revision(name: str, meaning: str, advice: str) -> Definition:
    return Definition(name, "gauge", "autoscaler", meaning, advice, REVISION_LABELS)


DESIRED = _of_revision(
    "kn_revision_pods_desired",
    "Instances the autoscaler wants, before min-scale and max-scale.",
    "Above kn_revision_pods_requested: max-scale limits the revision.",
)
REQUESTED = _of_revision(
    "kn_revision_pods_requested", "Instances requested, within min-scale and max-scale.", "Follows desired."
)
READY = _of_revision(
    "kn_revision_pods_count",
    "Instances that are ready.",
    "Below requested for long: instances do not start; read their logs.",
)
NOT_READY = _of_revision(
    "kn_revision_pods_not_ready_count", "Instances that run and are not ready.", "Above 0 for long: read their logs."
)
PENDING = _of_revision(
    "kn_revision_pods_pending_count",
    "Instances that are not running yet.",
    "Above 0 for long: check the nodes' capacity.",
)
TERMINATING = _of_revision(
    "kn_revision_pods_terminating_count",
    "Instances that finish their requests before they exit.",
    "Above 0 for long: slow requests.",
)
STABLE = _of_revision(
    "kn_revision_concurrency_stable",
    "Requests in flight, averaged over the stable window.",
    "Divided by the target, this gives desired.",
)
PANIC = _of_revision(
    "kn_revision_concurrency_panic",
    "Requests in flight, averaged over the panic window.",
    "At twice the capacity of the ready instances, panic mode begins.",
)
TARGET = _of_revision(
    "kn_revision_concurrency_target",
    "Target of requests in flight for one instance.",
    "Set by annotation; see ./run.sh plan.",
)
STABLE_RPS = _of_revision(
    "kn_revision_rps_stable_per_second", "Requests per second, averaged over the stable window.", "-"
)
PANIC_RPS = _of_revision(
    "kn_revision_rps_panic_per_second", "Requests per second, averaged over the panic window.", "-"
)
TARGET_RPS = _of_revision("kn_revision_rps_target_per_second", "Target of requests per second for one instance.", "-")
EXCESS = _of_revision(
    "kn_revision_capacity_excess",
    "Remaining burst capacity; 0 if target-burst-capacity is 0.",
    "Below 0: the activator is in the path.",
)
PANICKING = _of_revision(
    "kn_revision_panic_mode",
    "1 in panic mode, which only adds instances.",
    "1 for long: traffic has spikes, or min-scale is too low.",
)
WAITING = _of_revision(
    "kn_revision_request_queued",
    "Requests that wait in the activator for an instance.",
    "Above 0 for long: instances do not start; read their logs.",
)
COLD_START = Definition(
    "localkn_revision_cold_start_seconds",
    "gauge",
    "localkn",
    "Seconds from the first waiting request of the last start from zero to its answer.",
    "Too long for callers: raise min-scale.",
    REVISION_LABELS,
)
TRAFFIC = Definition(
    "localkn_revision_traffic_percent",
    "gauge",
    "localkn",
    "Share of the Service's traffic that goes to the revision.",
    "On a cluster, use kn service describe.",
    REVISION_LABELS,
)
SCRAPED = Definition(
    "localkn_instance_up",
    "gauge",
    "localkn",
    "1 if the instance's metrics were read, like Prometheus' up.",
    "0: the instance starts or stops, or its log contains metrics_port_taken.",
    POD_LABELS,
)

DEFINITIONS = tuple(value for value in list(vars().values()) if isinstance(value, Definition))
