"""What a sweep over a running pipeline saw."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

RECOMMEND, FEATURES, RANKER = "recommend", "extract-features", "rank-items"
SERVICES = (RECOMMEND, FEATURES, RANKER)

# A 99th percentile of fewer samples is the slowest of them.
_ENOUGH = 100


@dataclass(frozen=True)
class Receipts:
    """
    What the answers of a step told of themselves (Server-Timing), seconds.

    Attributes:
        batches: Size and time of the batch each request was in.
        elsewhere_s: Each request's time without waiting for and being ranked in its batch.
        features_s: Each request's time in extract_features.
    """

    batches: Sequence[tuple[int, float]]
    elsewhere_s: Sequence[float]
    features_s: Sequence[float]


@dataclass(frozen=True)
class Step:
    """
    A number of callers, each of which asks again as soon as it is answered.

    Attributes:
        callers: How many.
        rps: Recommendations a second.
        p50_ms, p99_ms: Their latency.
        errors: Answers that were none.
        receipts: What they told.
        ready: Instances by Service, the same before and after; empty where the platform cannot be seen.
        cpu_s: CPU seconds for one recommendation, by Service; `platform` is the ingress and the supervisor, `callers` this process.
        users_per_request: Recommendations that one HTTP request to a Service stands for (coalescing).
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
class Configured:
    """
    How the pipeline is set up now, as far as it can be seen.

    Attributes:
        max_batch_size: Of rank_items.
        max_scale: By Service; none where it cannot be seen.
        target: By Service: requests in flight for each instance; none where it cannot be seen.
        cpus: Of this machine; None where the pipeline runs elsewhere.
    """

    max_batch_size: int = 32
    max_scale: Mapping[str, int] = field(default_factory=dict)
    target: Mapping[str, float] = field(default_factory=dict)
    cpus: int | None = None


@dataclass(frozen=True)
class Sweep:
    """Steps by rising number of callers, and the configuration they ran on."""

    steps: Sequence[Step]
    configured: Configured

    def batches(self) -> list[tuple[int, float]]:
        """Return the batches of all steps."""
        return [batch for step in self.steps for batch in step.receipts.batches]

    def elsewhere_s(self, share: float) -> float:
        """Return a quantile of the time besides ranking, of the step where least was in its way."""
        return _least([step.receipts.elsewhere_s for step in self.steps], share)

    def features_s(self) -> float:
        """Return the median time in extract_features, of the step where least was in its way."""
        return _least([step.receipts.features_s for step in self.steps], 0.5)

    def cpu_s(self, service: str) -> float:
        """Return the CPU seconds a recommendation costs a Service when it is busy; 0 where that cannot be seen."""
        # At the most callers: coalescing and batching are part of the price at capacity.
        return self.steps[-1].cpu_s.get(service, 0.0)

    def users_per_request(self, service: str, *, rps: float) -> float:
        """Return how many recommendations a request to *service* stands for near *rps*; 1 where it cannot be seen."""
        nearest = min(self.steps, key=lambda step: abs(step.rps - rps))
        return max(1.0, nearest.users_per_request.get(service, 1.0))

    def per_ranker(self) -> list[tuple[float, float]]:
        """Return callers and recommendations a second of each step, shared out over the rankers there were."""
        counts = [max(1, step.ready.get(RANKER, 1)) for step in self.steps]
        return [(s.callers / count, s.rps / count) for s, count in zip(self.steps, counts, strict=True)]


def _least(measured: Sequence[Sequence[float]], share: float) -> float:
    """Return the least of the quantiles, where there is a choice of those with samples enough to have one."""
    enough = [values for values in measured if len(values) >= _ENOUGH]
    return min(_quantile(values, share) for values in enough or measured)


def _quantile(values: Sequence[float], share: float) -> float:
    if not values:
        return 0.0
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[round(share * 100) - 1]
