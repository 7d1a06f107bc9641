"""
Counters, gauges and histograms that cost next to nothing to move.

prometheus_client's own instruments take a lock and a label look-up at each step, 1 to 4 us; at a dozen steps a
request that is several per cent of it. Here everything moves on the event loop, so a step is an addition (0.1 to
0.5 us), and prometheus_client reads the totals when it is scraped.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from chassis.telemetry.definitions import Definition

Labels = tuple[str, ...]


class Instrument(Protocol):
    """Something that can be scraped."""

    definition: Definition

    def collect(self) -> Metric:
        """Return what there is to scrape."""
        ...


class Counter:
    """
    Counts, by labels.

    Args:
        definition: What it counts.
        known: Labels that are there from the start with 0: what first appears with its first count has no rate.
    """

    def __init__(self, definition: Definition, *, known: Iterable[Labels] = ()) -> None:
        self.definition = definition
        self._totals: defaultdict[Labels, float] = defaultdict(float, dict.fromkeys(known, 0.0))

    def add(self, *labels: str, amount: float = 1.0) -> None:
        """Count *amount* more for *labels*."""
        self._totals[labels] += amount

    def collect(self) -> Metric:
        """Return the totals."""
        family = CounterMetricFamily(self.definition.name, self.definition.meaning, labels=self.definition.labels)
        for labels, total in dict(self._totals).items():
            family.add_metric(labels, total)
        return family


class Totals:
    """
    A counter or gauge kept elsewhere: *read* returns its values by labels at each scrape.

    A value without labels has the empty tuple as its key.
    """

    def __init__(self, definition: Definition, read: Callable[[], Mapping[Labels, float]]) -> None:
        self.definition = definition
        self._read = read

    def collect(self) -> Metric:
        """Return what *read* returns now."""
        family_type = CounterMetricFamily if self.definition.kind == "counter" else GaugeMetricFamily
        family = family_type(self.definition.name, self.definition.meaning, labels=self.definition.labels)
        for labels, value in self._read().items():
            family.add_metric(labels, value)
        return family


class Histogram:
    """Distributes values over the definition's buckets, by labels."""

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
        """Return the cumulated buckets and sums."""
        family = HistogramMetricFamily(self.definition.name, self.definition.meaning, labels=self.definition.labels)
        for labels, counts in dict(self._counts).items():
            family.add_metric(labels, list(self._cumulated(counts)), self._sums[labels])
        return family

    def _cumulated(self, counts: Iterable[int]) -> Iterable[tuple[str, float]]:
        total = 0
        for bound, count in zip((*(str(float(bound)) for bound in self._bounds), "+Inf"), list(counts), strict=True):
            total += count
            yield bound, total
