"""The quick reading of an exposition."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from chassis.telemetry import definitions
from chassis.telemetry.exposition import Exposition
from chassis.telemetry.instruments import Counter, Histogram
from kndashboard.samples import read_samples


def test_the_samples_are_those_of_prometheus_client():
    """Names, labels and values equal those that prometheus_client reads; other metrics are left out."""
    exposition, registry = Exposition(), CollectorRegistry()
    requests, duration = Counter(definitions.REQUESTS), Histogram(definitions.REQUEST_DURATION)
    retries = Counter(definitions.HOP_RETRIES)
    exposition.add([requests, duration, retries])
    requests.add('2"0\\0,x="y', amount=2.5)
    retries.add("ranking")
    duration.observe(0.003)
    registry.register(exposition)
    text = generate_latest(registry).decode()
    parsed = {
        (sample.name, tuple(sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if family.name != "recsys_hop_retries"
    }
    read, _ = read_samples(text)
    assert {(name, tuple(key for key, _ in labels)) for name in read for labels in read[name]} == set(parsed)
    (labels,) = read["recsys_requests_total"]
    assert read["recsys_requests_total"][labels] == 2.5
    assert read["recsys_request_duration_seconds_bucket"][(("le", "0.005"),)] == 1
    assert "recsys_hop_retries_total" not in read


@pytest.mark.parametrize("text", [
    'recsys_requests_total{status="200"} 7\n# TYPE x gauge\nx 1\nprocess_cpu_seconds_total 2.5',
    'recsys_requests_total{status="200"} 7\n# TYPE x gauge\nprocess_cpu_seconds_total 2.5\nx 1',
    'recsys_requests_total{status="200"} 7\nrecsys_requests_total{status="503"} 1\nprocess_cpu_seconds_total 2.5',
    "process_cpu_seconds_total 2.5",
    "",
])  # fmt: skip
def test_a_known_layout_changes_no_sample(text: str):
    """The samples are the same with the layout of an earlier exposition, whether or not its lines are in place."""
    _, layout = read_samples('recsys_requests_total{status="200"} 5\n# TYPE x gauge\nx 1\nprocess_cpu_seconds_total 2')
    assert read_samples(text, layout) == read_samples(text)


def test_a_known_layout_refuses_what_is_no_number():
    """A value that is not a number makes the text invalid, also in a known place."""
    _, layout = read_samples("process_cpu_seconds_total 2")
    with pytest.raises(ValueError, match="x"):
        read_samples("process_cpu_seconds_total x", layout)


@pytest.mark.parametrize("text", ["not metrics at all", "a{b 3", "{} 3", "a three", "<html>"])
def test_a_text_that_is_no_exposition_is_refused(text: str):
    """A line that is not a sample makes the whole text invalid."""
    with pytest.raises(ValueError, match=r"."):
        read_samples(text)
