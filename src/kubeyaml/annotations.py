"""The annotations of objects, and the former and present spellings of those for autoscaling."""

import re
from collections.abc import Mapping
from typing import Any, Final

SCALING: Final = "autoscaling.knative.dev"

# Spellings from before kebab-case that Knative still reads.
_FORMER: Final = {
    f"{SCALING}/{re.sub('-(.)', lambda m: m[1].upper(), name)}": f"{SCALING}/{name}"
    for name in (
        "initial-scale", "max-scale", "metric-aggregation-algorithm", "min-scale", "panic-threshold-percentage",
        "panic-window-percentage", "scale-down-delay", "scale-to-zero-pod-retention-period", "target-burst-capacity",
        "target-utilization-percentage",
    )
}  # fmt: skip


def annotations_of(described: Mapping[str, Any]) -> dict[str, str]:
    """Return the annotations of an object, or of a Service's template."""
    return (described.get("metadata") or {}).get("annotations") or {}


def canonical(annotations: Mapping[str, str]) -> dict[str, str]:
    """Return *annotations* in the current spelling, which takes precedence over the former spelling."""
    former = {new: annotations[old] for old, new in _FORMER.items() if old in annotations}
    return former | {key: value for key, value in annotations.items() if key not in _FORMER}
