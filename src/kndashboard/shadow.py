"""The shadow: the revision of rank-items that ranks copies of calls, and how its lists compare with the served ones."""

from collections.abc import Mapping, Sequence
from typing import Any

from chassis.telemetry.definitions import HOP_DURATION
from kndashboard.interval import SnapshotInterval
from kndashboard.settings import first_setting, revisions_by_url
from kndashboard.snapshots import Snapshot
from recsys import metrics

_OUTCOMES = ("compared", "failed", "dropped")
_HOPS = {"serving": "rank_items", "shadow": "rank_items_shadow"}


def shadow(services: Sequence[Mapping[str, Any]], now: Snapshot) -> dict[str, Any] | None:
    """
    Return the comparison of the running shadow, since the instances of its caller started; None if no shadow runs.

    Args:
        services: The Services as Kubernetes objects.
        now: The platform.
    """
    url = first_setting(services, "SHADOW_RANK_ITEMS_URL")
    if not url:
        return None
    span = SnapshotInterval(now, now)
    copies = span.value(metrics.SHADOWED.name, by="outcome")
    return {
        "revision": revisions_by_url(services).get(url, url),
        "share": first_setting(services, "SHADOW_SHARE"),
        "copies": {outcome: copies.get(outcome, 0.0) for outcome in _OUTCOMES},
        "overlap": _mean(span, metrics.SHADOW_OVERLAP.name),
        "order": _mean(span, metrics.SHADOW_ORDER.name),
        "latency_s": {title: _mean(span, HOP_DURATION.name, hop=hop) for title, hop in _HOPS.items()},
    }


def _mean(span: SnapshotInterval, name: str, *, hop: str = "") -> float | None:
    """Return the mean of a histogram's values; None without values."""
    by = "hop" if hop else ""
    count = span.value(f"{name}_count", by=by).get(hop, 0.0)
    return span.value(f"{name}_sum", by=by).get(hop, 0.0) / count if count else None
