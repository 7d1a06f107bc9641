"""
The values of a Service in a slot of the file, and the figures of a chart that follow from them.

Every value is a sum over the seconds of its slot. A figure of a longer time follows from the sum of its slots, and is
exact: a mean of quantiles would not be the quantile of the hour.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from chassis.telemetry.definitions import BATCH_SIZE, LATENCY_BUCKETS, REQUEST_DURATION, REQUESTS, SIZE_BUCKETS
from kndashboard.interval import SnapshotInterval, quantile
from kndashboard.samples import CPU, MEMORY
from recsys.metrics import DEGRADED

_INF = float("inf")
_LATENCIES, _SIZES = (*LATENCY_BUCKETS, _INF), (*map(float, SIZE_BUCKETS), _INF)
# Gauges are multiplied by the seconds for which they held.
_PLAIN = (
    "seconds", "measured", "requests", "errors", "degraded", "cpu", "ranked", "ready", "desired", "in_flight",
    "target", "memory",
)  # fmt: skip
WIDTH = len(_PLAIN) + len(_LATENCIES) + len(_SIZES)

FIGURES = (
    "rate", "p50", "p99", "errors", "degraded", "ready", "desired", "in_flight", "target", "batch", "batch_p99", "cpu",
    "memory",
)  # fmt: skip


def column(span: SnapshotInterval, name: str, service: Mapping[str, Any]) -> list[float]:
    """Return the values of the Service *name* for the time between two snapshots."""
    routed = [revision for revision in service["revisions"] if revision["traffic_percent"]]
    statuses = span.increase(REQUESTS.name, by="status", service=name)
    memory = span.value(MEMORY, service=name)
    by_concurrency = [revision for revision in routed if revision["metric"] == "concurrency"]
    plain = {
        "seconds": span.seconds,
        "measured": span.seconds if memory else 0.0,
        "requests": sum(statuses.values()) if memory else span.seconds * sum(each["rps"] for each in routed),
        "errors": sum(count for status, count in statuses.items() if status.startswith("5")),
        "degraded": _total(span.increase(DEGRADED.name, service=name)),
        "cpu": _total(span.increase(CPU, service=name)),
        "ranked": _total(span.increase(f"{BATCH_SIZE.name}_sum", service=name)),
        "ready": span.seconds * sum(each["ready"] for each in routed),
        "desired": span.seconds * sum(each["desired"] for each in routed),
        "in_flight": span.seconds * sum(each["concurrency"] for each in routed),
        "target": span.seconds * sum(each["target"] * max(1, each["ready"]) for each in by_concurrency),
        "memory": span.seconds * _total(memory),
    }
    latencies = span.buckets(REQUEST_DURATION.name, service=name)
    sizes = span.buckets(BATCH_SIZE.name, service=name)
    return [
        *(plain[key] for key in _PLAIN),
        *(latencies.get(bound, 0.0) for bound in _LATENCIES),
        *(sizes.get(bound, 0.0) for bound in _SIZES),
    ]


def figures(values: Sequence[float]) -> dict[str, float | None]:
    """Return the figures of a chart for *values*, summed over any time; None if there are no data."""
    of = dict(zip(_PLAIN, values, strict=False))
    latencies = dict(zip(_LATENCIES, values[len(_PLAIN) :], strict=False))
    sizes = dict(zip(_SIZES, values[len(_PLAIN) + len(_LATENCIES) :], strict=False))
    batches = sum(sizes.values())
    p50, p99, largest = quantile(latencies, 0.5), quantile(latencies, 0.99), quantile(sizes, 0.99)
    return {
        "rate": _per(of["requests"], of["seconds"]),
        "p50": None if p50 is None else p50 * 1000,
        "p99": None if p99 is None else p99 * 1000,
        "errors": _per(of["errors"], of["measured"]),
        "degraded": _per(of["degraded"], of["measured"]),
        "ready": _per(of["ready"], of["seconds"]),
        "desired": _per(of["desired"], of["seconds"]),
        "in_flight": _per(of["in_flight"], of["seconds"]),
        "target": _per(of["target"], of["seconds"]) or None,
        "batch": _per(of["ranked"], batches),
        # A batch has a whole number of requests; the quantile lies between two bounds.
        "batch_p99": None if largest is None else math.ceil(largest),
        "cpu": _per(of["cpu"], of["measured"]),
        "memory": _per(of["memory"], of["measured"] * 2**20),
    }


def _per(total: float, seconds: float) -> float | None:
    return total / seconds if seconds else None


def _total(by_label: Mapping[str, float]) -> float:
    return sum(by_label.values())


def added(columns: Iterable[Sequence[float]]) -> list[float]:
    """Return the sum of *columns*, value by value."""
    return [sum(values) for values in zip(*columns, strict=True)]
