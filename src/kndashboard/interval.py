"""
What happened between two looks at a platform: increases of counters, quantiles of histograms.

An instance that is new has counted from zero since the first look; one that has ended takes its last counts along.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate, pairwise

from kndashboard.snapshots import Snapshot

_Key = tuple[str, str, tuple[tuple[str, str], ...]]


class SnapshotInterval:
    """
    The time from one look to a later one.

    Args:
        before: The earlier look.
        after: The later one.
    """

    def __init__(self, before: Snapshot, after: Snapshot) -> None:
        self.seconds = after.at - before.at
        self._before, self._after = dict(_samples(before)), dict(_samples(after))
        self._service_of = {labels["pod"]: labels["service"] for labels, _ in after.instances()}

    def increase(self, name: str, *, by: str = "", service: str | None = None) -> dict[str, float]:
        """Return how much the counter *name* grew, by the values of the label *by*; at one *service* or at all."""
        grown = ((key, max(0.0, value - self._before.get(key, 0.0))) for key, value in self._of(name, service))
        return _grouped(grown, by, sum)

    def rates(self, name: str, *, by: str = "", service: str | None = None) -> dict[str, float]:
        """Return the same for each second."""
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
        """Return what *name* is now, *over* instances."""
        return _grouped(self._of(name, service), by, over)

    def buckets(self, name: str, *, service: str | None = None) -> dict[float, float]:
        """Return how many values of the histogram *name* were within each bound and above the one before."""
        counted = self.increase(f"{name}_bucket", by="le", service=service)
        cumulated = sorted((float(bound), count) for bound, count in counted.items())
        return {bound: count - below for (_, below), (bound, count) in pairwise([(0.0, 0.0), *cumulated])}

    def _of(self, name: str, service: str | None) -> Iterator[tuple[_Key, float]]:
        for key, value in self._after.items():
            if key[1] == name and service in {None, self._service_of.get(key[0])}:
                yield key, value


def quantile(buckets: Mapping[float, float], q: float) -> float | None:
    """
    Estimate a quantile as Prometheus' histogram_quantile does: evenly within its bucket.

    Args:
        buckets: Values counted within each upper bound, bounds rising.
        q: Which quantile, 0 to 1.

    Returns:
        The estimate; the last finite bound where it lies above that, None of nothing.
    """
    bounds, cumulated = [0.0, *buckets], list(accumulate(buckets.values(), initial=0.0))
    wanted = q * cumulated[-1]
    if not cumulated[-1]:
        return None
    at = bisect_left(cumulated, wanted) or bisect_right(
        cumulated, 0.0
    )  # the lowest is in the first bucket that is not empty
    low, high = bounds[at - 1], bounds[at]
    if high == float("inf"):
        return low
    return low + (high - low) * (wanted - cumulated[at - 1]) / (cumulated[at] - cumulated[at - 1])


def _samples(sight: Snapshot) -> Iterator[tuple[_Key, float]]:
    for pod, families in sight.scraped.items():
        for family in families:
            for sample in family.samples:
                yield (pod, sample.name, tuple(sorted(sample.labels.items()))), sample.value


def _grouped(
    samples: Iterable[tuple[_Key, float]], by: str, over: Callable[[Iterable[float]], float]
) -> dict[str, float]:
    groups: dict[str, list[float]] = {}
    for (_, _, labels), value in samples:
        groups.setdefault(dict(labels).get(by, ""), []).append(value)
    return {label: over(values) for label, values in groups.items()}
