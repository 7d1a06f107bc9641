"""The quick reading of an exposition."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from chassis.telemetry import definitions
from chassis.telemetry.exposition import Exposition
from chassis.telemetry.instruments import Counter, Histogram
from kndashboard.samples import SampleReader, Samples, differing_lines


def read_samples(text: str) -> Samples:
    return SampleReader().read(text)


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


KNOWN = 'recsys_requests_total{status="200"} 5\n# TYPE x gauge\nx 1\nprocess_cpu_seconds_total 2'


@pytest.mark.parametrize("text", [
    KNOWN,
    'recsys_requests_total{status="200"} 7\n# TYPE x gauge\nx 1\nprocess_cpu_seconds_total 2.5',
    'recsys_requests_total{status="200"} 7\n# TYPE x gauge\nprocess_cpu_seconds_total 2.5\nx 1',
    'recsys_requests_total{status="200"} 7\nrecsys_requests_total{status="503"} 1\nprocess_cpu_seconds_total 2.5',
    f'{KNOWN}\nrecsys_requests_total{{status="503"}} 1',
    "process_cpu_seconds_total 2.5",
    "",
])  # fmt: skip
def test_a_known_exposition_changes_no_sample(text: str):
    """The samples are the same after another exposition, whether or not the lines are in place."""
    reader = SampleReader()
    before = reader.read(KNOWN)
    assert dict(reader.read(text)) == dict(read_samples(text))
    assert dict(before) == dict(read_samples(KNOWN))


@pytest.mark.parametrize("text", ["process_cpu_seconds_total x", "process_cpu_seconds_total 2\nx", "x"])
def test_what_is_no_number_is_refused_after_a_known_exposition(text: str):
    """A value that is not a number, and a line without a value, make the text invalid, also in a known place."""
    reader = SampleReader()
    reader.read("process_cpu_seconds_total 2")
    with pytest.raises(ValueError, match=r"."):
        reader.read(text)


@given(st.lists(st.text("ab\u20ac", max_size=40), max_size=60), st.data())
def test_the_differing_lines_are_those_of_a_comparison_line_by_line(lines: list[str], data: st.DataObject):
    """Exactly the pairs of lines that differ are yielded, also where their lengths differ."""
    others = [data.draw(st.sampled_from([line, line, line, f"{line}b", "a" * 50, line[1:]])) for line in lines]
    expected = [(line, other) for line, other in zip(lines, others, strict=True) if line != other]
    assert list(differing_lines("\n".join(lines), "\n".join(others))) == expected


@pytest.mark.parametrize("text", ["not metrics at all", "a{b 3", "{} 3", "a three", "<html>"])
def test_a_text_that_is_no_exposition_is_refused(text: str):
    """A line that is not a sample makes the whole text invalid."""
    with pytest.raises(ValueError, match=r"."):
        read_samples(text)
