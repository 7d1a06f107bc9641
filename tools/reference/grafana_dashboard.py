"""
`knative/monitoring/dashboard.json`, the Grafana dashboard, from the list of panels below.

The dashboard's JSON has a thousand lines of layout around forty queries. Reviewers read the queries here.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_WIDTH = 24
_SOURCE = {"type": "prometheus", "uid": "${source}"}
# Label filters with the dashboard's variables: for metrics of instances (_POD, _OURS) and of revisions (_KN).
_POD = 'namespace=~"$namespace",service=~"$service"'
_OURS = 'namespace=~"$namespace"'
_KN = 'k8s_namespace_name=~"$namespace",kn_service_name=~"$service"'
_R = "[$__rate_interval]"


@dataclass(frozen=True)
class GrafanaPanel:
    """A panel: its *queries* are pairs of PromQL and legend."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: str = "timeseries"
    columns: int = 8
    height: int = 8


def _quantiles(metric: str, limits: str, by: str = "") -> tuple[tuple[str, str], ...]:
    legend = f"{{{{{by}}}}} " if by else ""
    return tuple(
        (
            f"histogram_quantile({q}, sum by ({', '.join(filter(None, (by, 'le')))}) (rate({metric}_bucket{{{limits}}}{_R})))",
            f"{legend}p{round(q * 100)}",
        )
        for q in (0.5, 0.95, 0.99)
    )


def _legend(by: str) -> str:
    return " ".join(f"{{{{{each}}}}}" for each in by.split(", "))


def _rate(metric: str, by: str, limits: str = _POD) -> tuple[tuple[str, str], ...]:
    return ((f"sum by ({by}) (rate({metric}{{{limits}}}{_R}))", _legend(by)),)


def _levels(how: str, by: str, limits: str, **words: str) -> tuple[tuple[str, str], ...]:
    """Return a query for each gauge that *words* names, combined as *how* says; a legend ends in the gauge's word."""
    return tuple(
        (f"{how} by ({by}) ({metric}{{{limits}}})", f"{_legend(by)} {word}".rstrip()) for metric, word in words.items()
    )


def _stat(title: str, query: str, unit: str) -> GrafanaPanel:
    return GrafanaPanel(title, ((query, ""),), unit, "stat", columns=4, height=4)


_FRONT = f'{_OURS},service="recommend"'
ROWS: dict[str, tuple[GrafanaPanel, ...]] = {
    "Pipeline": (
        _stat("Requests", f"sum(rate(recsys_requests_total{{{_FRONT}}}{_R}))", "reqps"),
        _stat("Failures", f"service:recsys_failures:ratio_rate5m{{{_FRONT}}}", "percentunit"),
        _stat("Degraded", f"namespace:recsys_degraded:ratio_rate5m{{{_OURS}}}", "percentunit"),
        _stat("p99", f"service:recsys_request_duration_seconds:p99_5m{{{_FRONT}}}", "s"),
        _stat("Ready instances", f"sum(recsys_ready{{{_OURS}}})", "short"),
        _stat("Model age", f"max(recsys_model_age_seconds{{{_OURS}}})", "s"),
        GrafanaPanel("Requests", _rate("recsys_requests_total", "service", _OURS), "reqps"),
        GrafanaPanel("Latency of recommend", _quantiles("recsys_request_duration_seconds", _FRONT), "s"),
        GrafanaPanel("Answers degraded, by missing hop", _rate("recsys_degraded_total", "hop", _OURS), "reqps"),
    ),
    "Components": (
        GrafanaPanel("Requests by status", _rate("recsys_requests_total", "service, status"), "reqps"),
        GrafanaPanel("Latency", _quantiles("recsys_request_duration_seconds", _POD, "service"), "s"),
        GrafanaPanel("Errors by code", _rate("recsys_errors_total", "service, code"), "reqps"),
        GrafanaPanel("In flight", _levels("sum", "service", _POD, recsys_requests_in_flight="")),
        GrafanaPanel("Waiting", _levels("sum", "service, queue", _POD, recsys_queue_depth="")),
        GrafanaPanel("CPU", _rate("process_cpu_seconds_total", "service"), "percentunit"),
        GrafanaPanel("Memory", _levels("sum", "service", _POD, process_resident_memory_bytes=""), "bytes"),
        GrafanaPanel("Calls by hop and outcome", _rate("recsys_hop_calls_total", "hop, outcome", _OURS), "reqps"),
        GrafanaPanel("Latency of hops", _quantiles("recsys_hop_duration_seconds", _OURS, "hop"), "s"),
        GrafanaPanel(
            "Retries and hedges",
            (
                (f"sum by (hop) (rate(recsys_hop_retries_total{{{_OURS}}}{_R}))", "{{hop}} retries"),
                (f"sum by (hop) (rate(recsys_hop_hedges_total{{{_OURS}}}{_R}))", "{{hop}} hedges"),
            ),
            "reqps",
        ),
        GrafanaPanel(
            "Breakers: 0 closed, 1 half-open, 2 open",
            _levels("max", "hop", _OURS, recsys_breaker_state=""),
        ),
        GrafanaPanel("Feature store", _quantiles("recsys_store_duration_seconds", _OURS, "operation"), "s"),
        GrafanaPanel("Failures of the feature store", _rate("recsys_store_errors_total", "operation", _OURS), "reqps"),
    ),
    "Batching": (
        GrafanaPanel(
            "Batch size, mean",
            (
                (
                    (
                        f"sum by (service) (rate(recsys_batch_size_sum{{{_OURS}}}{_R}))"
                        f" / sum by (service) (rate(recsys_batch_size_count{{{_OURS}}}{_R}))"
                    ),
                    "now",
                ),
                (f"service:recsys_batch_size:mean_5m{{{_OURS}}}", "5 minutes"),
            ),
        ),
        GrafanaPanel(
            "Batch sizes",
            ((f"sum by (le) (increase(recsys_batch_size_bucket{{{_OURS}}}{_R}))", "{{le}}"),),
            kind="heatmap",
        ),
        GrafanaPanel("Waits: fill and slot", _quantiles("recsys_batch_wait_seconds", _OURS, "kind"), "s"),
        GrafanaPanel("Execution", _quantiles("recsys_batch_execution_seconds", _OURS), "s"),
        GrafanaPanel("Busy ranking, by phase", _rate("recsys_ranking_seconds_total", "phase", _OURS), "percentunit"),
        GrafanaPanel("Why batches were cut", _rate("recsys_batch_cuts_total", "reason", _OURS), "ops"),
        GrafanaPanel("Requests dropped from the queue", _rate("recsys_batch_dropped_total", "reason", _OURS), "reqps"),
    ),
    "Autoscaling": (
        GrafanaPanel(
            "Instances",
            _levels(
                "sum",
                "kn_revision_name",
                _KN,
                kn_revision_pods_count="ready",
                kn_revision_pods_requested="requested",
                kn_revision_pods_desired="desired",
            ),
            columns=12,
        ),
        GrafanaPanel(
            "Concurrency against target",
            (
                (f"sum by (kn_revision_name) (kn_revision_concurrency_stable{{{_KN}}})", "{{kn_revision_name}} stable"),
                (f"sum by (kn_revision_name) (kn_revision_concurrency_panic{{{_KN}}})", "{{kn_revision_name}} panic"),
                (
                    (
                        f"sum by (kn_revision_name) (kn_revision_concurrency_target{{{_KN}}} * on (k8s_namespace_name, kn_revision_name)"
                        f" group_left () kn_revision_pods_count{{{_KN}}})"
                    ),
                    "{{kn_revision_name}} target of all instances",
                ),
            ),
            columns=12,
        ),
        GrafanaPanel("Panic mode", _levels("max", "kn_revision_name", _KN, kn_revision_panic_mode="")),
        GrafanaPanel(
            "Not ready, pending, terminating",
            _levels(
                "sum",
                "kn_revision_name",
                _KN,
                kn_revision_pods_not_ready_count="not ready",
                kn_revision_pods_pending_count="pending",
                kn_revision_pods_terminating_count="ending",
            ),
        ),
        GrafanaPanel(
            "Start of an instance",
            _levels("max", "service", _POD, recsys_start_duration_seconds=""),
            "s",
        ),
    ),
    "Events": (
        GrafanaPanel("Interactions by outcome", _rate("recsys_events_total", "outcome", _OURS), "ops"),
        GrafanaPanel("Events about answers by outcome", _rate("recsys_served_events_total", "outcome", _OURS), "ops"),
        GrafanaPanel("Exposures by outcome", _rate("recsys_exposures_total", "outcome", _OURS), "ops"),
        GrafanaPanel("Actions that name an exposure", _rate("recsys_exposure_actions_total", "kind", _OURS), "ops"),
        GrafanaPanel(
            "Events waiting for their transaction",
            ((f'sum(recsys_queue_depth{{{_OURS},queue="ingest"}})', "waiting"),),
        ),
    ),
    "Drift": (
        GrafanaPanel(
            "Drift from the training (population stability index)",
            (
                (
                    'max by (measure) (measure:recsys_drift_psi:index_1h{namespace=~"$namespace"}) or vector(0)',
                    "{{measure}}",
                ),
            ),
        ),
        GrafanaPanel(
            "Unknown items in histories",
            (('max(namespace:recsys_history_items_unknown:ratio_1h{namespace=~"$namespace"}) or vector(0)', "share"),),
            "percentunit",
        ),
    ),
    "Versions": (
        # Without a shadow there are no such metrics, and the panels show 0.
        GrafanaPanel(
            "Shadow: copies by outcome",
            ((f"sum by (outcome) (rate(recsys_shadow_calls_total{{{_OURS}}}{_R})) or vector(0)", "{{outcome}}"),),
            "reqps",
        ),
        GrafanaPanel(
            "Shadow: agreement with served lists",
            tuple(
                (
                    f"sum(rate({name}_sum{{{_OURS}}}{_R})) / (sum(rate({name}_count{{{_OURS}}}{_R})) > 0) or vector(0)",
                    title,
                )
                for name, title in (
                    ("recsys_shadow_overlap_ratio", "items in both"),
                    ("recsys_shadow_order_ratio", "order of shared items"),
                )
            ),
            "percentunit",
        ),
        GrafanaPanel(
            "Arms of experiments: calls by outcome",
            (
                (
                    f"sum by (experiment, arm, outcome) (rate(recsys_experiment_calls_total{{{_OURS}}}{_R})) or vector(0)",
                    "{{experiment}} {{arm}} {{outcome}}",
                ),
            ),
            "reqps",
        ),
        GrafanaPanel(
            "Revisions",
            ((f"count by (service, revision) (recsys_build_info{{{_POD}}})", "{{revision}}"),),
            kind="table",
            columns=12,
        ),
        GrafanaPanel(
            "Models",
            _levels("count", "name, version", _OURS, recsys_model_info=""),
            kind="table",
        ),
        _stat("Loading the model", f"max(recsys_model_load_seconds{{{_OURS}}})", "s"),
        _stat("Recall of the index", f"min(recsys_index_recall_ratio{{{_OURS}}})", "percentunit"),
        _stat(
            "Catalogue changes that some instances lack",
            f"max(recsys_catalogue_revision{{{_OURS}}}) - min(recsys_catalogue_revision{{{_OURS}}})",
            "short",
        ),
    ),
}


def render() -> str:
    """Return the dashboard as JSON for Grafana's import."""
    dashboard = {
        "title": "Recommendation pipeline",
        "uid": "recsys-pipeline",
        "tags": ["recsys", "knative"],
        "schemaVersion": 39,
        "timezone": "browser",
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": list(_variables())},
        "panels": list(_panels()),
    }
    return json.dumps(dashboard, indent=1) + "\n"


def _variables() -> Iterator[dict[str, Any]]:
    yield {"name": "source", "label": "Source", "type": "datasource", "query": "prometheus"}
    for name, query in (
        ("namespace", "label_values(recsys_ready, namespace)"),
        ("service", 'label_values(recsys_ready{namespace=~"$namespace"}, service)'),
    ):
        yield {
            "name": name,
            "label": name.capitalize(),
            "type": "query",
            "datasource": _SOURCE,
            "query": {"query": query, "refId": "variable"},
            "refresh": 2,
            "includeAll": True,
            "multi": True,
            "current": {"text": "All", "value": "$__all"},
        }


def _panels() -> Iterator[dict[str, Any]]:
    y = number = 0
    for row, panels in ROWS.items():
        number += 1
        yield {"id": number, "type": "row", "title": row, "gridPos": {"x": 0, "y": y, "w": _WIDTH, "h": 1}}
        x, y, lowest = 0, y + 1, 0
        for panel in panels:
            if x + panel.columns > _WIDTH:
                x, y, lowest = 0, y + lowest, 0
            number += 1
            yield _panel(number, panel, x=x, y=y)
            x, lowest = x + panel.columns, max(lowest, panel.height)
        y += lowest


def _panel(number: int, panel: GrafanaPanel, *, x: int, y: int) -> dict[str, Any]:
    layout = {"timeseries": "time_series", "heatmap": "heatmap", "table": "table", "stat": "time_series"}[panel.kind]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "datasource": _SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.columns, "h": panel.height},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + i),
                "datasource": _SOURCE,
                "expr": query,
                "legendFormat": legend,
                "format": layout,
                **({"instant": True, "range": False} if panel.kind in {"table", "stat"} else {}),
            }
            for i, (query, legend) in enumerate(panel.queries)
        ],
    }
