"""Combine the metrics of all instances and of the platform into one text in Prometheus' format."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from chassis.telemetry.definitions import Definition
from kndashboard import definitions
from kndashboard.snapshots import Snapshot

# Reads a metric from the status of a revision; None if the revision has no such metric.
_Read = Callable[[Mapping[str, Any]], float | None]


def expose(snapshot: Snapshot) -> bytes:
    """Return the metrics in *snapshot*. The metrics of an instance get the labels of a pod."""
    registry = CollectorRegistry(auto_describe=False)
    parsed = {pod: families for pod, exposed in snapshot.scraped.items() if (families := _parsed(exposed.text))}
    registry.register(_Families([*_platform(snapshot, parsed), *_merged(snapshot, parsed)]))
    return generate_latest(registry)


def _parsed(text: str) -> Sequence[Metric]:
    """Return the metrics in *text*; none if it is not valid."""
    try:
        return list(text_string_to_metric_families(text))
    except ValueError:
        return ()


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _platform(snapshot: Snapshot, parsed: Collection[str]) -> Iterator[Metric]:
    revisions = [
        ((service["namespace"], name, name, revision["name"]), revision)
        for name, service in snapshot.services.items()
        for revision in service["revisions"]
    ]
    for definition, read in _OF_REVISIONS.items():
        yield _family(definition, ((labels, read(revision)) for labels, revision in revisions))
    scraped = ((tuple(labels.values()), labels["pod"] in parsed) for labels, _ in snapshot.instances())
    yield _family(definitions.SCRAPED, scraped)


def _family(definition: Definition, values: Iterable[tuple[tuple[str, ...], float | None]]) -> Metric:
    family = Metric(definition.name, definition.meaning, definition.kind)
    for labels, value in values:
        if value is not None:
            family.add_sample(definition.name, dict(zip(definition.labels, labels, strict=True)), float(value))
    return family


def _merged(snapshot: Snapshot, parsed: Mapping[str, Sequence[Metric]]) -> Iterable[Metric]:
    """Return one family for each metric, because Prometheus expects the samples of all instances in one family."""
    merged: dict[str, Metric] = {}
    for labels, _ in snapshot.instances():
        for family in parsed.get(labels["pod"], ()):
            whole = merged.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            # A label that the instance sets takes precedence, as with a monitor's honorLabels.
            whole.samples.extend(Sample(s.name, {**labels, **s.labels}, s.value) for s in family.samples)
    return merged.values()


def _count(*states: str) -> _Read:
    return lambda revision: sum(instance["state"] in states for instance in revision["instances"])


def _where(metric: str, key: str) -> _Read:
    return lambda revision: revision[key] if revision["metric"] == metric else None


def _at(key: str) -> _Read:
    return lambda revision: revision[key]


_OF_REVISIONS: Mapping[Definition, _Read] = {
    definitions.DESIRED: _at("decided"),
    definitions.REQUESTED: _at("desired"),
    definitions.READY: _at("ready"),
    definitions.NOT_READY: _count("starting", "unready"),
    definitions.PENDING: _count("pending"),
    definitions.TERMINATING: _count("draining"),
    definitions.STABLE: _where("concurrency", "stable"),
    definitions.PANIC: _where("concurrency", "panic"),
    definitions.TARGET: _where("concurrency", "target"),
    definitions.STABLE_RPS: _where("rps", "stable"),
    definitions.PANIC_RPS: _where("rps", "panic"),
    definitions.TARGET_RPS: _where("rps", "target"),
    definitions.EXCESS: _at("excess_burst_capacity"),
    definitions.PANICKING: _at("panicking"),
    definitions.WAITING: _at("waiting"),
    definitions.COLD_START: _at("cold_start_s"),
    definitions.TRAFFIC: _at("traffic_percent"),
}
