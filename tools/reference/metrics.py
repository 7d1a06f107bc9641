"""`docs/reference/metrics.md`, from the definitions of the metrics."""

from collections.abc import Sequence

from chassis.telemetry.definitions import Definition
from kndashboard.definitions import DEFINITIONS as PLATFORM
from recsys.metrics import DEFINITIONS

_HEAD = """# Metrics

`./run.sh docs` generates this page from `src/chassis/telemetry/definitions.py`,
`src/recsys/metrics.py` and `src/kndashboard/definitions.py`.

Each function exposes its metrics in Prometheus' format on a separate port (`METRICS_PORT`, default
9464), never on the public port. The process metrics `process_*` and `python_*` are exposed as well.
On a cluster, Prometheus scrapes each pod (`knative/monitoring/pod-monitors.yaml`). On one machine,
localkn's dashboard collects all metrics at one `/metrics`. In both cases samples carry the labels
`namespace`, `service`, `revision` and `pod`.

Ray Serve's tutorial names four metrics. These are the counterparts:

| Ray Serve | this project |
|---|---|
| `ray_serve_deployment_request_counter` | `recsys_requests_total` |
| `ray_serve_deployment_processing_latency_ms` | `recsys_request_duration_seconds` |
| `ray_serve_deployment_error_counter` | `recsys_errors_total` |
| `ray_serve_deployment_queued_queries` | `recsys_queue_depth`, `recsys_requests_in_flight` |

## Metrics of the functions

| metric | kind | functions | labels | meaning | what to do |
|---|---|---|---|---|---|
"""

_PLATFORM = """
## Metrics of the platform

Knative's autoscaler exposes these metrics for each revision. The names are those of its
OpenTelemetry metrics (Serving 1.19 and later) as Prometheus stores them. localkn exposes its own
decisions under the same names. The metrics `localkn_*` exist on one machine only.

| metric | kind | of | labels | meaning | what to do |
|---|---|---|---|---|---|
"""

_RECORDED = """
`knative/monitoring/rules.yaml` records ratios and quantiles of these metrics and alerts on them.
[React to alerts](../how-to/alerts.md) says what to do about each alert.
`knative/monitoring/dashboard.json` shows the metrics in Grafana.
"""


def render() -> str:
    """Return the page as Markdown."""
    return _HEAD + _rows(DEFINITIONS) + _PLATFORM + _rows(PLATFORM) + _RECORDED


def _rows(definitions: Sequence[Definition]) -> str:
    return "".join(
        f"| `{d.name}` | {d.kind} | {d.functions} | {', '.join(f'`{label}`' for label in d.labels)} "
        f"| {d.meaning} | {d.advice} |\n"
        for d in definitions
    )
