import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from chassis.telemetry import definitions
from chassis.telemetry.definitions import Definition
from chassis.telemetry.exposition import Exposition
from chassis.telemetry.instruments import Counter, Histogram, Instrument, Totals
from recsys.metrics import DEFINITIONS

COUNTS = Definition("x_total", "counter", "all", "Things.", "-", ("kind",))
SIZES = Definition("x_size", "histogram", "all", "Sizes.", "-", ("kind",), (1, 2.5, 10))
LEVEL = Definition("x_level", "gauge", "all", "Level.", "-")


def scrape(*instruments: Instrument) -> dict[str, float]:
    exposition = Exposition()
    exposition.add(instruments)
    registry = CollectorRegistry()
    registry.register(exposition)
    return {
        sample.name + "".join(f"|{value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def test_counters_count_per_label():
    """Each combination of labels has a separate total."""
    counter = Counter(COUNTS)
    counter.add("a")
    counter.add("a", amount=2.5)
    counter.add("b")
    assert scrape(counter) == {"x_total|a": 3.5, "x_total|b": 1.0}


def test_histogram_buckets_are_cumulative():
    """A value is counted in every bucket at or above it, in the sum and in the count."""
    histogram = Histogram(SIZES)
    for value in (0.5, 1, 2, 11):
        histogram.observe(value, "a")
    assert scrape(histogram) == {
        "x_size_bucket|a|1.0": 2,
        "x_size_bucket|a|2.5": 3,
        "x_size_bucket|a|10.0": 3,
        "x_size_bucket|a|+Inf": 4,
        "x_size_count|a": 4,
        "x_size_sum|a": 14.5,
    }


def test_totals_are_read_at_scrape_time():
    """A total shows the value that its source has when scraped."""
    level = [1.0]
    totals = Totals(LEVEL, lambda: {(): level[0]})
    assert scrape(totals) == {"x_level": 1.0}
    level[0] = 2.0
    assert scrape(totals) == {"x_level": 2.0}
    assert scrape(Totals(COUNTS, lambda: {("a",): 7})) == {"x_total|a": 7}


def test_metric_names_follow_the_conventions():
    """Names start with recsys_, only counters end in _total, and no name is used twice."""
    names = [definition.name for definition in DEFINITIONS]
    assert len(names) == len(set(names)) > 20
    for definition in DEFINITIONS:
        assert definition.name.startswith("recsys_")
        assert definition.name.endswith("_total") == (definition.kind == "counter")
        assert (definition.kind == "histogram") == bool(definition.buckets)
        assert list(definition.buckets) == sorted(definition.buckets)
        assert definition.meaning.endswith(".")
        assert definition.advice


@pytest.mark.parametrize("buckets", [definitions.LATENCY_BUCKETS, definitions.SIZE_BUCKETS])
def test_a_value_at_a_bound_belongs_to_its_bucket(buckets):
    """A value equal to a bound is counted at that bound."""
    histogram = Histogram(Definition("x", "histogram", "all", "X.", "-", (), tuple(buckets)))
    histogram.observe(buckets[3])
    shown = scrape(histogram)
    assert shown[f"x_bucket|{float(buckets[3])}"] == 1
    assert shown[f"x_bucket|{float(buckets[2])}"] == 0
