"""The data of the page."""

import math
from collections.abc import Mapping
from typing import Any

from chassis.telemetry import definitions
from kndashboard.interval import SnapshotInterval, quantile
from kndashboard.snapshots import Snapshot
from recsys import metrics

# Calls between the functions: the caller, its hop, and the called Service.
_CALLS = (("recommend", "extract_features", "extract-features"), ("recommend", "rank_items", "rank-items"))
_SHOWN = (
    "name", "ready", "desired", "traffic_percent", "tags", "failure", "concurrency", "target", "metric", "rps", "waiting",
    "cold_start_s",
)  # fmt: skip


def view(before: Snapshot, now: Snapshot) -> dict[str, Any]:
    """
    Return the data of the page: *now*, with rates and quantiles since *before*.

    The scale and the load of a Service are those of its revisions with traffic. `idle` counts the others' instances,
    and `waiting` the requests in the activator.
    """
    span = SnapshotInterval(before, now)
    return {
        "url": now.status["url"],
        "services": {name: _service(span, name, service) for name, service in now.services.items()},
        "calls": [
            {"from": caller, "to": called, **_call(span, hop, caller)}
            for caller, hop, called in _CALLS
            if {caller, called} <= now.services.keys()
        ],
        "batches": {
            "sizes": [
                {"up_to": None if math.isinf(bound) else bound, "count": count}
                for bound, count in span.buckets(definitions.BATCH_SIZE.name).items()
            ],
            "cuts": span.increase(definitions.BATCH_CUTS.name, by="reason"),
        },
        "events": {
            "rates": span.rates(metrics.EVENTS.name, by="outcome"),
            "totals": span.value(metrics.EVENTS.name, by="outcome"),
        },
    }


def _service(span: SnapshotInterval, name: str, service: Mapping[str, Any]) -> dict[str, Any]:
    shown = [revision for revision in service["revisions"] if revision["instances"] or revision["traffic_percent"]]
    routed = [revision for revision in shown if revision["traffic_percent"]]
    return {
        "public": service["public"],
        "address": service["address"],
        "ready": sum(revision["ready"] for revision in routed),
        "desired": sum(revision["desired"] for revision in routed),
        "waiting": sum(revision["waiting"] for revision in shown),
        "idle": sum(revision["ready"] for revision in shown if not revision["traffic_percent"]),
        **_load(routed),
        "problem": service["problem"],
        **_traffic(span, name, shown),
        "queued": sum(span.value(definitions.QUEUE_DEPTH.name, service=name).values()),
        "revisions": [_revision(revision) for revision in shown],
    }


def _traffic(span: SnapshotInterval, name: str, revisions: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Return requests, failures and latencies; for an image without these metrics, the platform's measurements."""
    statuses = span.rates(definitions.REQUESTS.name, by="status", service=name)
    if not statuses and not span.value(definitions.IN_FLIGHT.name, service=name):
        rps = sum(revision["rps"] for revision in revisions)
        # The platform's latencies are those since its start, so they say nothing of a Service without requests.
        seen = {key: revisions[-1].get(key) for key in ("p50_ms", "p99_ms")} if rps else {}
        return {"rps": rps, "errors": None, "p50_ms": None, "p99_ms": None, **seen}
    buckets = span.buckets(definitions.REQUEST_DURATION.name, service=name)
    failed = sum(rate for status, rate in statuses.items() if status.startswith("5"))
    quantiles = {f"p{q}_ms": _ms(quantile(buckets, q / 100)) for q in (50, 95, 99)}
    return {"rps": sum(statuses.values()), "errors": failed, **quantiles}


def _load(routed: list[Mapping[str, Any]]) -> dict[str, float]:
    """Return the requests in flight (or a second, as the revision's metric is), and how many its instances are meant for."""
    by_rate = any(revision["metric"] == "rps" for revision in routed)
    load = sum(revision["rps" if by_rate else "concurrency"] for revision in routed)
    meant = sum(revision["target"] * max(1, revision["ready"]) for revision in routed)
    return {"load": load, "meant": meant, "by_rate": by_rate}


def _revision(revision: Mapping[str, Any]) -> dict[str, Any]:
    instances = [{"name": instance["name"], "state": instance["state"]} for instance in revision["instances"]]
    return {key: revision[key] for key in _SHOWN} | {"panicking": revision["panicking"], "instances": instances}


def _call(span: SnapshotInterval, hop: str, caller: str) -> dict[str, float]:
    breakers = span.value(definitions.BREAKER.name, by="hop", service=caller, over=max)
    calls = span.rates(definitions.HOP_CALLS.name, by="hop", service=caller)
    return {"rps": calls.get(hop, 0.0), "breaker": breakers.get(hop, 0.0)}


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000
