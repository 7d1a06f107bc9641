"""
Counters, gauges and histograms that cost little to update.

prometheus_client's own instruments take a lock and look up labels at each update, which costs 1 to 4 us. A request
makes a dozen updates. These instruments are updated on the event loop alone, so an update is an addition (0.1 to
0.5 us). prometheus_client reads the totals at each scrape.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from chassis.telemetry.definitions import Definition

Labels = tuple[str, ...]


class Instrument(Protocol):
    """A source of one metric."""

    definition: Definition

    def collect(self) -> Metric:
        """Return the current values."""
        ...


class Counter:
    """
    Counts, by labels.

    Args:
        definition: The metric.
        known: Labels that start with 0. Prometheus computes no rate for the first value of a series.
    """

    def __init__(self, definition: Definition, *, known: Iterable[Labels] = ()) -> None:
        self.definition = definition
        self._totals: defaultdict[Labels, float] = defaultdict(float, dict.fromkeys(known, 0.0))

    def add(self, *labels: str, amount: float = 1.0) -> None:
        """Add *amount* to the total of *labels*."""
        self._totals[labels] += amount

    def collect(self) -> Metric:
        """Return the totals."""
        family = CounterMetricFamily(self.definition.name, self.definition.meaning, labels=self.definition.labels)
        for labels, total in dict(self._totals).items():
            family.add_metric(labels, total)
        return family


class Totals:
    """
    A counter or gauge whose values are stored elsewhere: *read* returns them by labels at each scrape.

    A value without labels has the empty tuple as its key.
    """

    def __init__(self, definition: Definition, read: Callable[[], Mapping[Labels, float]]) -> None:
        self.definition = definition
        self._read = read

    def collect(self) -> Metric:
        """Return the current values."""
        family_type = CounterMetricFamily if self.definition.kind == "counter" else GaugeMetricFamily
        family = family_type(self.definition.name, self.definition.meaning, labels=self.definition.labels)
        for labels, value in self._read().items():
            family.add_metric(labels, value)
        return family


class Histogram:
    """Counts values in the buckets of the definition, by labels."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self._bounds = definition.buckets
        self._counts: dict[Labels, list[int]] = {}
        self._sums: defaultdict[Labels, float] = defaultdict(float)

    def observe(self, value: float, *labels: str) -> None:
        """Count *value* in its bucket for *labels*."""
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * (len(self._bounds) + 1)
        counts[bisect_left(self._bounds, value)] += 1
        self._sums[labels] += value

    def collect(self) -> Metric:
        """Return the cumulative buckets and the sums."""
        family = HistogramMetricFamily(self.definition.name, self.definition.meaning, labels=self.definition.labels)
        for labels, counts in dict(self._counts).items():
            family.add_metric(labels, list(self._cumulated(counts)), self._sums[labels])
        return family

    def _cumulated(self, counts: Iterable[int]) -> Iterable[tuple[str, float]]:
        total = 0
        for bound, count in zip((*(str(float(bound)) for bound in self._bounds), "+Inf"), list(counts), strict=True):
            total += count
            yield bound, total
