"""
Read the samples of an exposition that the page shows.

prometheus_client's parser takes 90 times as long for the same exposition. The dashboard reads every instance once a
second, so it uses that parser only for `/metrics`.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
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
    *(metric.name for metric in (
        definitions.REQUESTS, definitions.IN_FLIGHT, definitions.QUEUE_DEPTH, definitions.BATCH_CUTS,
        definitions.HOP_CALLS, definitions.BREAKER, metrics.DEGRADED, metrics.EVENTS, metrics.MODEL, metrics.MODEL_AGE,
    )),
})  # fmt: skip
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_SERIES_KEPT = 16_384


def read_samples(text: str) -> Samples:
    """
    Return the samples in *text*, by name and labels. Only the metrics that the page shows are read.

    Raises:
        ValueError: A line is not a sample.
    """
    found: dict[str, dict[Labels, float]] = defaultdict(dict)
    for line in text.splitlines():
        if line and line[0] != "#":
            series, _, value = line.rpartition(" ")
            key, read = _series(series), float(value)
            if key is not None:
                found[key[0]][key[1]] = read
    return found


@lru_cache(_SERIES_KEPT)
def _series(text: str) -> tuple[str, Labels] | None:
    """Return the name and the sorted labels of a series; None if the page does not show it."""
    name, brace, labels = text.partition("{")
    if bool(brace) != labels.endswith("}") or not name or " " in name:
        raise ValueError(f"{text}: is not the name of a series")
    return (name, tuple(sorted(_LABEL.findall(labels)))) if name in _NAMES else None
