"""
Read the samples of an exposition that the page shows.

prometheus_client's parser takes 90 times as long for the same exposition. The dashboard reads every instance once a
second, so it uses that parser only for `/metrics`.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from chassis.telemetry import definitions
from recsys import metrics

Labels = tuple[tuple[str, str], ...]
Samples = Mapping[str, Mapping[Labels, float]]

CPU, MEMORY = "process_cpu_seconds_total", "process_resident_memory_bytes"
_NAMES = frozenset({
    CPU,
    MEMORY,
    *(f"{metric.name}{suffix}" for metric in metrics.DEFINITIONS if metric.kind == "histogram"
      for suffix in ("_bucket", "_sum", "_count") if metric in {definitions.REQUEST_DURATION, definitions.BATCH_SIZE}),
    *(f"{metric.name}{suffix}" for metric in (definitions.HOP_DURATION, metrics.SHADOW_OVERLAP, metrics.SHADOW_ORDER)
      for suffix in ("_sum", "_count")),
    *(metric.name for metric in (
        definitions.REQUESTS, definitions.IN_FLIGHT, definitions.QUEUE_DEPTH, definitions.BATCH_CUTS,
        definitions.HOP_CALLS, definitions.BREAKER, metrics.DEGRADED, metrics.EVENTS, metrics.MODEL, metrics.MODEL_AGE,
        metrics.SHADOWED, metrics.ARM_CALLS,
    )),
})  # fmt: skip
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_SERIES_KEPT = 16_384


@dataclass(frozen=True)
class Layout:
    """
    The place of each sample that the page shows in the exposition of one instance.

    An instance never removes a series and rarely adds one, so its lines stay in place from one second to the next.

    Attributes:
        lines: Number of lines.
        places: Line number, series with the space after it, name and labels of each sample.
    """

    lines: int
    places: Sequence[tuple[int, str, str, Labels]]

    @classmethod
    def of(cls, lines: Sequence[str]) -> "Layout":
        """
        Find the samples in *lines*.

        Raises:
            ValueError: A line is not a sample.
        """
        places = []
        for i, line in enumerate(lines):
            if line and line[0] != "#":
                series, _, value = line.rpartition(" ")
                float(value)
                if (key := _series(series)) is not None:
                    places.append((i, f"{series} ", *key))
        return cls(len(lines), places)

    def read(self, lines: Sequence[str]) -> Samples | None:
        """
        Return the samples in *lines*, by name and labels; None if *lines* have another layout.

        Raises:
            ValueError: A value is not a number.

        Cost: a fifth of that of `of`.
        """
        if len(lines) != self.lines:
            return None
        found: dict[str, dict[Labels, float]] = defaultdict(dict)
        for i, series, name, labels in self.places:
            if not lines[i].startswith(series):
                return None
            found[name][labels] = float(lines[i][len(series) :])
        return found


def read_samples(text: str, known: Layout | None = None) -> tuple[Samples, Layout]:
    """
    Return the samples in *text* that the page shows, by name and labels, and their layout.

    Args:
        text: The exposition.
        known: The layout of an earlier exposition of the same instance.

    Raises:
        ValueError: A line is not a sample.
    """
    lines = text.splitlines()
    if known and (samples := known.read(lines)) is not None:
        return samples, known
    layout = Layout.of(lines)
    return layout.read(lines) or {}, layout


@lru_cache(_SERIES_KEPT)
def _series(text: str) -> tuple[str, Labels] | None:
    """Return the name and the sorted labels of a series; None if the page does not show it."""
    name, brace, labels = text.partition("{")
    if bool(brace) != labels.endswith("}") or not name or " " in name:
        raise ValueError(f"{text}: is not the name of a series")
    return (name, tuple(sorted(_LABEL.findall(labels)))) if name in _NAMES else None
