"""`./run.sh docs`: write docs/metrics.md from the definitions, or with --check tell whether it is up to date."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from chassis.telemetry.definitions import Definition
from dashboard.definitions import DEFINITIONS as PLATFORM
from recsys.metrics import DEFINITIONS

PAGE = Path(__file__).parents[1] / "docs/metrics.md"

_HEAD = """# Metrics

Generated from `src/chassis/telemetry/definitions.py`, `src/recsys/metrics.py` and
`src/dashboard/definitions.py` by `./run.sh docs`.

Each function exposes its metrics in Prometheus' format on a port of their own (`METRICS_PORT`, 9464 where not told otherwise), never
on the public one. Besides these there are the process's own (`process_*`, `python_*`). On a cluster Prometheus scrapes each pod
(`knative/monitoring/pod-monitors.yaml`); on one machine localkn's dashboard gathers all of them at one `/metrics`. In both places
samples have the labels `namespace`, `service`, `revision`, `pod`.

The four that Ray Serve's tutorial names, and ours:

| there | here |
|---|---|
| `ray_serve_deployment_request_counter` | `recsys_requests_total` |
| `ray_serve_deployment_processing_latency_ms` | `recsys_request_duration_seconds` |
| `ray_serve_deployment_error_counter` | `recsys_errors_total` |
| `ray_serve_deployment_queued_queries` | `recsys_queue_depth`, `recsys_requests_in_flight` |

## Of the functions

| metric | kind | functions | labels | meaning | when it looks wrong |
|---|---|---|---|---|---|
"""

_PLATFORM = """
## Of the platform

What Knative's autoscaler says about each revision, under the names of its OpenTelemetry metrics (Serving 1.19 and later) as Prometheus
stores them. localkn says the same of its own decisions, which are Knative's, and what nobody else knows on this machine.

| metric | kind | of | labels | meaning | when it looks wrong |
|---|---|---|---|---|---|
"""

_RECORDED = """
`knative/monitoring/rules.yaml` records ratios and quantiles of these and alerts on them; what to do about an alert is in the
[runbook](runbook.md). `knative/monitoring/dashboard.json` shows them in Grafana.
"""


def render() -> str:
    """Return the page."""
    return _HEAD + _rows(DEFINITIONS) + _PLATFORM + _rows(PLATFORM) + _RECORDED


def _rows(definitions: Sequence[Definition]) -> str:
    return "".join(
        f"| `{d.name}` | {d.kind} | {d.functions} | {', '.join(f'`{label}`' for label in d.labels)} "
        f"| {d.meaning} | {d.advice} |\n"
        for d in definitions
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the page; return the exit status."""
    parser = argparse.ArgumentParser(prog="./run.sh docs", description=__doc__)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args(arguments).check:
        if PAGE.read_text("utf-8") == render():
            return 0
        print("docs/metrics.md is out of date; run ./run.sh docs", file=sys.stderr)
        return 1
    PAGE.write_text(render(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
