"""
The decision Knative's autoscaler takes every two seconds.

Source: knative/serving pkg/autoscaler/scaling/autoscaler.go (Scale) and metrics/collector.go (record).
"""

import math
from dataclasses import dataclass

from localkn.kpa.settings import Settings
from localkn.kpa.windows import LinearWindow, MaximumWindow, WeightedWindow

TICK_S = 2
"""A decision is due every so many seconds."""


@dataclass(frozen=True, slots=True)
class ScaleDecision:
    """One answer of the autoscaler. Not *valid*: the stable window held no data, so nothing changes."""

    valid: bool = False
    stable: float = 0.0
    panic: float = 0.0
    desired: int = 0
    excess_burst_capacity: int = 0
    panicking: bool = False


class Autoscaler:
    """
    Decides how many instances one revision should have. Times are seconds that never fall.

    Args:
        settings: The revision's resolved annotations.
        reachable: False once no traffic target leads to the revision; may be set later.

    Attributes:
        stable: The values of the stable window.
        panic: The values of the panic window.
    """

    def __init__(self, settings: Settings, *, reachable: bool = True) -> None:
        self.settings = settings
        self.reachable = reachable
        window = WeightedWindow if settings.weighted else LinearWindow
        self.stable = window(settings.stable_window_s)
        self.panic = window(settings.panic_window_s)
        delay_buckets = math.ceil(settings.scale_down_delay_s / TICK_S)
        self._delayed = MaximumWindow(delay_buckets) if delay_buckets else None
        self._panic_since: float | None = None
        self._panic_pods = 0

    def record(self, now: float, value: float) -> None:
        """Record the concurrency (or requests per second) of all instances during the second of *now*."""
        second = math.floor(now)
        self.stable.record(second, value)
        self.panic.record(second, value)

    def decide(self, now: float, *, ready: int) -> ScaleDecision:
        """Return the number of instances that there should be at *now*, given that *ready* are ready."""
        second = math.floor(now)
        if self.stable.is_empty(second):
            return ScaleDecision(panicking=self._panic_since is not None)
        stable, panic = self.stable.average(second), self.panic.average(second)
        pods = max(1, ready)
        stable_need, panic_need = math.ceil(stable / self.settings.target), math.ceil(panic / self.settings.target)
        self._follow_panic(now, over=panic_need / pods >= self.settings.panic_threshold)
        desired = self._within_rates(stable_need, pods=pods)
        if self._panic_since is not None:
            # Instances are only added while panicking: the surge may not have reached the stable window yet.
            self._panic_pods = max(self._panic_pods, desired, self._within_rates(panic_need, pods=pods))
            desired = self._panic_pods
        if self.reachable and self._delayed is not None:
            desired = self._delayed.record(second // TICK_S, desired)
        return ScaleDecision(
            valid=True,
            stable=stable,
            panic=panic,
            desired=desired,
            excess_burst_capacity=self._excess_burst_capacity(panic, ready=ready),
            panicking=self._panic_since is not None,
        )

    def _follow_panic(self, now: float, *, over: bool) -> None:
        if over:
            self._panic_since = now
        elif self._panic_since is not None and self._panic_since + self.settings.stable_window_s < now:
            self._panic_since = None
            self._panic_pods = 0

    def _within_rates(self, need: int, *, pods: int) -> int:
        """Keep *need* within one tick's rates of change, and at activation-scale while there is any."""
        at_most = math.ceil(self.settings.max_scale_up_rate * pods)
        at_least = math.floor(pods / self.settings.max_scale_down_rate) if self.reachable else 0
        desired = min(max(need, at_least), at_most)
        return max(desired, self.settings.activation_scale) if need > 0 else desired

    def _excess_burst_capacity(self, panic: float, *, ready: int) -> int:
        burst = self.settings.target_burst_capacity
        if burst <= 0:
            return int(burst)
        return math.floor(ready * self.settings.total - burst - panic)
