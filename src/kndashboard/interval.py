"""
Compute from two snapshots of a platform the increases of counters and the quantiles of histograms.

A new instance has counted from zero since the first snapshot. The last counts of an instance that has ended are lost.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate, pairwise

from kndashboard.snapshots import Snapshot


class SnapshotInterval:
    """
    The time between two snapshots.

    Args:
        before: The earlier snapshot.
        after: The later snapshot.
    """

    def __init__(self, before: Snapshot, after: Snapshot) -> None:
        self.seconds = after.at - before.at
        self._before, self._after = before.scraped, after.scraped
        self._pods: dict[str, list[str]] = {}
        for labels, _ in after.instances():
            self._pods.setdefault(labels["service"], []).append(labels["pod"])

    def increase(self, name: str, *, by: str = "", service: str | None = None) -> dict[str, float]:
        """Return the increase of the counter *name* by the values of the label *by*, of one *service* or of all."""
        found: dict[str, float] = {}
        for label, value, before in self._of(name, service, by):
            found[label] = found.get(label, 0.0) + max(0.0, value - before)
        return found

    def rates(self, name: str, *, by: str = "", service: str | None = None) -> dict[str, float]:
        """Return the increase per second; see `increase`."""
        grown = self.increase(name, by=by, service=service)
        return {key: value / self.seconds if self.seconds else 0.0 for key, value in grown.items()}

    def value(
        self,
        name: str,
        *,
        by: str = "",
        service: str | None = None,
        over: Callable[[Iterable[float]], float] = sum,
    ) -> dict[str, float]:
        """Return the latest value of *name*, with *over* applied to the values of the instances."""
        found: dict[str, list[float]] = {}
        for label, value, _ in self._of(name, service, by):
            found.setdefault(label, []).append(value)
        return {label: over(values) for label, values in found.items()}

    def buckets(self, name: str, *, service: str | None = None) -> dict[float, float]:
        """Return the number of new values in each bucket of the histogram *name*, by upper bound."""
        counted = self.increase(f"{name}_bucket", by="le", service=service)
        cumulated = sorted((float(bound), count) for bound, count in counted.items())
        return {bound: count - below for (_, below), (bound, count) in pairwise([(0.0, 0.0), *cumulated])}

    def _of(self, name: str, service: str | None, by: str) -> Iterator[tuple[str, float, float]]:
        """Yield each sample of *name*: its label *by*, its value, and its value before."""
        pods = self._after if service is None else self._pods.get(service, ())
        for pod in pods:
            if pod in self._after:
                before = self._before[pod].samples if pod in self._before else None
                yield from self._after[pod].samples.since(before, name, by)


def quantile(buckets: Mapping[float, float], q: float) -> float | None:
    """
    Estimate a quantile as Prometheus' histogram_quantile does: values lie evenly within their bucket.

    Args:
        buckets: Number of values by the upper bound of their bucket, bounds rising.
        q: The quantile, 0 to 1.

    Returns:
        The estimate. If it lies above the last finite bound, that bound. None without values.
    """
    bounds, cumulated = [0.0, *buckets], list(accumulate(buckets.values(), initial=0.0))
    wanted = q * cumulated[-1]
    if not cumulated[-1]:
        return None
    # The quantile 0 lies in the first bucket that is not empty.
    at = bisect_left(cumulated, wanted) or bisect_right(cumulated, 0.0)
    low, high = bounds[at - 1], bounds[at]
    if high == float("inf"):
        return low
    return low + (high - low) * (wanted - cumulated[at - 1]) / (cumulated[at] - cumulated[at - 1])
