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
    read = read_samples(text)
    assert {(name, tuple(key for key, _ in labels)) for name in read for labels in read[name]} == set(parsed)
    (labels,) = read["recsys_requests_total"]
    assert read["recsys_requests_total"][labels] == 2.5
    assert read["recsys_request_duration_seconds_bucket"][(("le", "0.005"),)] == 1
    assert "recsys_hop_retries_total" not in read


@pytest.mark.parametrize("text", ["not metrics at all", "a{b 3", "{} 3", "a three", "<html>"])
def test_a_text_that_is_no_exposition_is_refused(text: str):
    """A line that is not a sample makes the whole text invalid."""
    with pytest.raises(ValueError, match=r"."):
        read_samples(text)
