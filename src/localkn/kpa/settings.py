"""
What a revision's `autoscaling.knative.dev` annotations mean, and which of them Knative refuses.

Source: knative/serving pkg/apis/autoscaling (register.go, annotation_validation.go) and
pkg/reconciler/autoscaling/resources/target.go; cluster defaults of config-autoscaler.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from localkn.quantities import parse_duration_ns

GROUP: Final = "autoscaling.knative.dev"
KPA_CLASS: Final = f"kpa.{GROUP}"
HPA_CLASS: Final = f"hpa.{GROUP}"
_SECOND: Final = 10**9
_HOUR: Final = 3600 * _SECOND
_INT32_MAX: Final = 2**31 - 1
_TARGET_MIN: Final = 0.01

# Spellings from before kebab-case that Knative still reads; the kebab-case one wins.
_WITH_CAMEL_CASE: Final = frozenset({
    "initial-scale", "max-scale", "metric-aggregation-algorithm", "min-scale", "panic-threshold-percentage",
    "panic-window-percentage", "scale-down-delay", "scale-to-zero-pod-retention-period", "target-burst-capacity",
    "target-utilization-percentage",
})  # fmt: skip
_ALGORITHMS: Final = frozenset({"", "linear", "weighted-exponential", "weightedExponential"})


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

    @classmethod
    def from_annotations(cls, annotations: Mapping[str, str], *, container_concurrency: int) -> "Settings":
        """
        Resolve a revision's annotations against Knative's defaults.

        Args:
            annotations: Of the revision template; `faults` has found nothing wrong with them.
            container_concurrency: The hard limit of an instance, 0 for none.
        """
        number = _Reader(annotations).number
        seconds = _Reader(annotations).seconds
        metric = _find(annotations, "metric") or "concurrency"
        total = number("target", 200.0 if metric == "rps" else float(container_concurrency or 100))
        if metric == "concurrency" and container_concurrency:
            total = min(total, float(container_concurrency))
        stable_window_s = seconds("window", 60)
        panic_ns = int(float(stable_window_s * _SECOND) * number("panic-window-percentage", 10.0) / 100.0)
        return cls(
            target=max(_TARGET_MIN, total * (number("target-utilization-percentage", 70.0) / 100)),
            total=total,
            metric=metric,
            weighted=(_find(annotations, "metric-aggregation-algorithm") or "").startswith("weighted"),
            target_burst_capacity=number("target-burst-capacity", 211.0),
            stable_window_s=stable_window_s,
            panic_window_s=max(1, (panic_ns + _SECOND // 2) // _SECOND),
            panic_threshold=number("panic-threshold-percentage", 200.0) / 100.0,
            activation_scale=int(number("activation-scale", 0)),
            initial_scale=int(number("initial-scale", 1)),
            min_scale=int(number("min-scale", 0)),
            max_scale=int(number("max-scale", 0)),
            scale_down_delay_s=seconds("scale-down-delay", 0),
        )

    def bounded(self, desired: int, *, reachable: bool) -> int:
        """Clamp *desired* to min-scale and max-scale; a revision without traffic has no minimum."""
        minimum = self.min_scale if reachable else 0
        if desired < minimum:
            return minimum
        return min(desired, self.max_scale) if self.max_scale else desired


def faults(annotations: Mapping[str, str]) -> list[tuple[str, str]]:
    """
    List what Knative's webhook refuses in a template's annotations, as (annotation, reason).

    Keys of the group that Knative does not know are let through, as there.
    """
    return list(_faults(annotations))


def _faults(annotations: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, check in _CHECKS.items():
        text = _find(annotations, name)
        reason = None if text is None else check(text)
        if reason:
            yield f"{GROUP}/{name}", f"{text!r} {reason}"
    scaling_class = _find(annotations, "class") or KPA_CLASS
    metric = _find(annotations, "metric")
    if metric is not None and scaling_class == KPA_CLASS and metric not in {"concurrency", "rps"}:
        yield f"{GROUP}/metric", f"{metric!r} is neither concurrency nor rps"
    # As in Knative, the algorithm is looked at only where the class is spelled out.
    algorithm = _find(annotations, "metric-aggregation-algorithm")
    if algorithm not in {None, *_ALGORITHMS} and _find(annotations, "class") == KPA_CLASS:
        yield f"{GROUP}/metric-aggregation-algorithm", f"{algorithm!r} is neither linear nor weighted-exponential"
    yield from _scale_faults(annotations)


def _scale_faults(annotations: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    def whole(name: str) -> int:
        text = _find(annotations, name) or "0"
        return int(text) if re.fullmatch(r"[+-]?\d+", text) else 0

    minimum, maximum = whole("min-scale"), whole("max-scale")
    if maximum and maximum < minimum:
        yield f"{GROUP}/max-scale", f"max-scale={maximum} is less than min-scale={minimum}"
    if activation := whole("activation-scale"):
        if activation < minimum:
            yield f"{GROUP}/activation-scale", f"min-scale={minimum} is greater than activation-scale={activation}"
        elif maximum and maximum < activation:
            yield f"{GROUP}/activation-scale", f"max-scale={maximum} is less than activation-scale={activation}"


def _find(annotations: Mapping[str, str], name: str) -> str | None:
    value = annotations.get(f"{GROUP}/{name}")
    if value is None and name in _WITH_CAMEL_CASE:
        head, *rest = name.split("-")
        value = annotations.get(f"{GROUP}/{head}{''.join(word.title() for word in rest)}")
    return value


class _Reader:
    """Annotations as numbers, each with its default."""

    def __init__(self, annotations: Mapping[str, str]) -> None:
        self._annotations = annotations

    def number(self, name: str, default: float) -> float:
        text = _find(self._annotations, name)
        return default if text is None else float(text)

    def seconds(self, name: str, default: int) -> int:
        text = _find(self._annotations, name)
        return default if text is None else parse_duration_ns(text) // _SECOND


def _number(low: float, high: float = math.inf, *, besides: float | None = None) -> Callable[[str], str | None]:
    def check(text: str) -> str | None:
        if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text):
            return "is not a number"
        if low <= float(text) <= high or float(text) == besides:
            return None
        return f"is below {low:g}" if high == math.inf else f"is outside {low:g}..{high:g}"

    return check


def _whole(low: int) -> Callable[[str], str | None]:
    def check(text: str) -> str | None:
        if not re.fullmatch(r"[+-]?\d+", text):
            return "is not a whole number"
        return None if low <= int(text) <= _INT32_MAX else f"is outside {low}..{_INT32_MAX}"

    return check


def _duration(low_ns: int, *, whole_seconds: bool = True) -> Callable[[str], str | None]:
    def check(text: str) -> str | None:
        try:
            value = parse_duration_ns(text)
        except ValueError:
            return "is not a duration such as 60s or 1m30s"
        if not low_ns <= value <= _HOUR:
            return f"is outside {low_ns // _SECOND}s..1h"
        return "has a finer than second precision" if whole_seconds and value % _SECOND else None

    return check


def _scaling_class(text: str) -> str | None:
    known = not text.endswith(GROUP) or text in {KPA_CLASS, HPA_CLASS}
    return None if known else f"is neither {KPA_CLASS} nor {HPA_CLASS}"


_CHECKS: Final[Mapping[str, Callable[[str], str | None]]] = {
    "class": _scaling_class,
    "min-scale": _whole(0),
    "max-scale": _whole(0),
    "initial-scale": _whole(1),
    "activation-scale": _whole(2),
    "target": _number(_TARGET_MIN),
    "target-utilization-percentage": _number(1, 100),
    "target-burst-capacity": _number(0, besides=-1),
    "panic-window-percentage": _number(1, 100),
    "panic-threshold-percentage": _number(110, 1000),
    "window": _duration(6 * _SECOND),
    "scale-down-delay": _duration(0),
    "scale-to-zero-pod-retention-period": _duration(0, whole_seconds=False),
}
