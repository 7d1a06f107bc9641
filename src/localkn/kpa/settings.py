"""
The settings of the autoscaler, from a revision's `autoscaling.knative.dev` annotations.

Source: knative/serving pkg/apis/autoscaling/register.go and pkg/reconciler/autoscaling/resources/target.go;
cluster defaults of config-autoscaler.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kubeyaml.annotations import SCALING, canonical
from kubeyaml.quantities import parse_duration_ns

_SECOND: Final = 10**9


@dataclass(frozen=True, slots=True)
class Settings:
    """The numbers one revision is scaled by; durations in whole seconds, 0 for no limit or not set."""

    target: float = 70.0
    total: float = 100.0
    metric: str = "concurrency"
    weighted: bool = False
    target_burst_capacity: float = 211.0
    stable_window_s: int = 60
    panic_window_s: int = 6
    panic_threshold: float = 2.0
    max_scale_up_rate: float = 1000.0
    max_scale_down_rate: float = 2.0
    activation_scale: int = 0
    initial_scale: int = 1
    min_scale: int = 0
    max_scale: int = 0
    scale_down_delay_s: int = 0
    pod_retention_s: int = 0

    @classmethod
    def from_annotations(cls, annotations: Mapping[str, str], *, container_concurrency: int) -> "Settings":
        """
        Resolve a revision's annotations against Knative's defaults.

        Args:
            annotations: The valid annotations of the revision template.
            container_concurrency: The hard limit of an instance, 0 for none.
        """
        given = canonical(annotations)

        def number(name: str, default: float) -> float:
            return float(given.get(f"{SCALING}/{name}", default))

        def seconds(name: str, default: int) -> int:
            return parse_duration_ns(given.get(f"{SCALING}/{name}", f"{default}s")) // _SECOND

        metric = given.get(f"{SCALING}/metric", "concurrency")
        total = number("target", 200.0 if metric == "rps" else float(container_concurrency or 100))
        if metric == "concurrency" and container_concurrency:
            total = min(total, float(container_concurrency))
        stable_window_s = seconds("window", 60)
        panic_ns = int(float(stable_window_s * _SECOND) * number("panic-window-percentage", 10.0) / 100.0)
        return cls(
            target=max(0.01, total * (number("target-utilization-percentage", 70.0) / 100)),
            total=total,
            metric=metric,
            weighted=given.get(f"{SCALING}/metric-aggregation-algorithm", "").startswith("weighted"),
            target_burst_capacity=number("target-burst-capacity", 211.0),
            stable_window_s=stable_window_s,
            panic_window_s=max(1, (panic_ns + _SECOND // 2) // _SECOND),
            panic_threshold=number("panic-threshold-percentage", 200.0) / 100.0,
            activation_scale=int(number("activation-scale", 0)),
            initial_scale=int(number("initial-scale", 1)),
            min_scale=int(number("min-scale", 0)),
            max_scale=int(number("max-scale", 0)),
            scale_down_delay_s=seconds("scale-down-delay", 0),
            pod_retention_s=seconds("scale-to-zero-pod-retention-period", 0),
        )

    def bounded(self, desired: int, *, reachable: bool) -> int:
        """Clamp *desired* to min-scale and max-scale; a revision without traffic has no minimum."""
        minimum = self.min_scale if reachable else 0
        if desired < minimum:
            return minimum
        return min(desired, self.max_scale) if self.max_scale else desired
