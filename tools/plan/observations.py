"""The measurements of a sweep over a running pipeline."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

RECOMMEND, FEATURES, RANKER = "recommend", "extract-features", "rank-items"
SERVICES = (RECOMMEND, FEATURES, RANKER)

# With fewer samples, the 99th percentile is just the slowest sample.
_ENOUGH = 100


@dataclass(frozen=True)
class Receipts:
    """
    Figures from the receipts (Server-Timing) of a step's answers, in seconds.

    Attributes:
        batches: For each request, size and time of its batch.
        elsewhere_s: For each request, the total time without waiting for its batch and ranking.
        features_s: For each request, the time in extract_features.
    """

    batches: Sequence[tuple[int, float]]
    elsewhere_s: Sequence[float]
    features_s: Sequence[float]


@dataclass(frozen=True)
class LoopStep:
    """
    Measurements of a closed loop with a fixed number of callers.

    Attributes:
        callers: Number of callers.
        rps: Recommendations per second.
        p50_ms: Median latency.
        p99_ms: 99th percentile of latency.
        errors: Failed, wrong and degraded answers.
        receipts: Figures from the answers' receipts.
        ready: Ready instances by Service; empty if the platform's status is unavailable.
        cpu_s: CPU seconds per recommendation, by Service; `platform` is Envoy and the supervisor, `callers` this process.
        users_per_request: Mean number of recommendations that share one HTTP request to a Service (coalescing).
    """

    callers: int
    rps: float
    p50_ms: float
    p99_ms: float
    errors: int
    receipts: Receipts
    ready: Mapping[str, int]
    cpu_s: Mapping[str, float]
    users_per_request: Mapping[str, float]


@dataclass(frozen=True)
class ObservedSettings:
    """
    Current settings of the pipeline. The defaults are for a pipeline that runs elsewhere.

    Attributes:
        max_batch_size: MAX_BATCH_SIZE of rank_items.
        max_scale: Maximum number of instances by Service.
        target: Target requests in flight per instance, by Service.
        cpus: Number of this machine's CPUs; None if the pipeline runs elsewhere.
    """

    max_batch_size: int = 32
    max_scale: Mapping[str, int] = field(default_factory=dict)
    target: Mapping[str, float] = field(default_factory=dict)
    cpus: int | None = None


@dataclass(frozen=True)
class Sweep:
    """Steps with rising numbers of callers, and the settings during them."""

    steps: Sequence[LoopStep]
    configured: ObservedSettings

    def batches(self) -> list[tuple[int, float]]:
        """Return size and time of the batches of all steps."""
        return [batch for step in self.steps for batch in step.receipts.batches]

    def elsewhere_s(self, share: float) -> float:
        """Return a quantile of the time outside ranking, the lowest of all steps."""
        return _lowest_quantile([step.receipts.elsewhere_s for step in self.steps], share)

    def features_s(self) -> float:
        """Return the median time in extract_features, the lowest of all steps."""
        return _lowest_quantile([step.receipts.features_s for step in self.steps], 0.5)

    def cpu_s(self, service: str) -> float:
        """Return the CPU seconds of *service* per recommendation under the highest load; 0 if unknown."""
        # Coalescing and batching lower the cost under load, so the step with the most callers shows the cost at capacity.
        return self.steps[-1].cpu_s.get(service, 0.0)

    def users_per_request(self, service: str, *, rps: float) -> float:
        """Return the mean number of recommendations that share a request to *service* near *rps*; 1 if unknown."""
        nearest = min(self.steps, key=lambda step: abs(step.rps - rps))
        return max(1.0, nearest.users_per_request.get(service, 1.0))

    def per_ranker(self) -> list[tuple[float, float]]:
        """Return callers and recommendations per second of each step, divided by the number of its rankers."""
        counts = [max(1, step.ready.get(RANKER, 1)) for step in self.steps]
        return [(s.callers / count, s.rps / count) for s, count in zip(self.steps, counts, strict=True)]


def _lowest_quantile(measured: Sequence[Sequence[float]], share: float) -> float:
    """Return the lowest quantile; ignore steps with too few samples, unless all steps have too few."""
    enough = [values for values in measured if len(values) >= _ENOUGH]
    return min(_quantile(values, share) for values in enough or measured)


def _quantile(values: Sequence[float], share: float) -> float:
    if not values:
        return 0.0
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[round(share * 100) - 1]
