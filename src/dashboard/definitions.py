"""
The metrics of the local platform, named as Knative names its own.

Source: Knative Serving's metrics reference, and pkg/autoscaler/scaling/metrics.go and
pkg/reconciler/autoscaling/kpa/metrics.go; OpenTelemetry's names as its Prometheus exporter writes them.
"""

from chassis.telemetry.definitions import Definition, Kind

# What a scrape of Knative's autoscaler says about each revision, and Prometheus about each pod.
REVISION_LABELS = ("k8s_namespace_name", "kn_service_name", "kn_configuration_name", "kn_revision_name")
POD_LABELS = ("namespace", "service", "revision", "pod")


def _of_revision(name: str, meaning: str, advice: str, kind: Kind = "gauge") -> Definition:
    return Definition(name, kind, "autoscaler", meaning, advice, REVISION_LABELS)


DESIRED = _of_revision(
    "kn_revision_pods_desired",
    "Instances the autoscaler wants, before min-scale and max-scale.",
    "Above kn_revision_pods_requested: max-scale holds it back.",
)
REQUESTED = _of_revision(
    "kn_revision_pods_requested", "Instances asked for, within min-scale and max-scale.", "Follows desired."
)
READY = _of_revision(
    "kn_revision_pods_count", "Instances that are ready.", "Below requested for long: they do not start; see logs."
)
NOT_READY = _of_revision(
    "kn_revision_pods_not_ready_count", "Instances that run and are not ready.", "Above 0 for long: see their log."
)
PENDING = _of_revision(
    "kn_revision_pods_pending_count", "Instances that do not run yet.", "Above 0 for long: no room on the nodes."
)
TERMINATING = _of_revision(
    "kn_revision_pods_terminating_count", "Instances that finish their requests and end.", "For long: slow requests."
)
STABLE = _of_revision(
    "kn_revision_concurrency_stable",
    "Requests in flight, average over the stable window.",
    "Divided by the target: desired.",
)
PANIC = _of_revision(
    "kn_revision_concurrency_panic",
    "Requests in flight, average over the panic window.",
    "Twice what is ready: panic mode.",
)
TARGET = _of_revision(
    "kn_revision_concurrency_target",
    "Requests in flight that one instance is to have.",
    "Set by annotation; see ./run.sh plan.",
)
STABLE_RPS = _of_revision(
    "kn_revision_rps_stable_per_second", "As the three above, for a revision scaled on requests per second.", "-"
)
PANIC_RPS = _of_revision("kn_revision_rps_panic_per_second", "Over the panic window.", "-")
TARGET_RPS = _of_revision("kn_revision_rps_target_per_second", "What one instance is to have.", "-")
EXCESS = _of_revision(
    "kn_revision_capacity_excess",
    "Burst capacity left; 0 where target-burst-capacity is.",
    "Below 0: the activator is in the path.",
)
PANICKING = _of_revision(
    "kn_revision_panic_mode", "1 while instances are only added.", "For long: traffic is spiky, or min-scale too low."
)
TRAFFIC = Definition(
    "localkn_revision_traffic_percent",
    "gauge",
    "localkn",
    "Share of the Service's traffic that leads to the revision.",
    "On a cluster: kn service describe.",
    REVISION_LABELS,
)
SCRAPED = Definition(
    "localkn_instance_up",
    "gauge",
    "localkn",
    "1 where an instance's metrics could be read, as Prometheus' up.",
    "0: it starts or ends, or its log says metrics_port_taken.",
    POD_LABELS,
)

DEFINITIONS = tuple(value for value in list(vars().values()) if isinstance(value, Definition))
