"""Durations and quantities in the notations of Go, Kubernetes and ISO 8601."""

import pytest

from kubeyaml.quantities import parse_duration_ns, parse_period_s, parse_quantity


def test_durations_and_quantities_are_parsed() -> None:
    """Go durations and Kubernetes quantities are parsed exactly, and other text is an error."""
    assert [parse_duration_ns(text) for text in ("1m30s", "-1.5h", "0", "100µs", ".5s")] == [
        90 * 10**9, -5400 * 10**9, 0, 10**5, 5 * 10**8,
    ]  # fmt: skip
    assert [float(parse_quantity(text)) for text in ("500m", "2", "1Ki", "1.5k", "1e3", "2E")] == [
        0.5, 2, 1024, 1500, 1000, 2e18,
    ]  # fmt: skip
    for bad in ("", "s", "1", "1 s", "1d"):
        with pytest.raises(ValueError, match="duration"):
            parse_duration_ns(bad)
    for bad in ("", "1KB", "m", "1 Mi"):
        with pytest.raises(ValueError, match="quantity"):
            parse_quantity(bad)


def test_periods_are_parsed() -> None:
    """ISO 8601 durations are parsed with one digit of a fraction, as on a cluster, and other text is an error."""
    texts = ("PT0.2S", "PT10S", "PT1M30S", "P1DT12H", "PT0.25S", "PT0,5S", "P0", "P2W", "-PT3S")
    assert [parse_period_s(text) for text in texts] == [0.2, 10, 90, 129_600, 0.2, 0.5, 0, 1_209_600, -3]
    for bad in ("", "P", "PT", "2s", "PT1", "P1S", "PTS"):
        with pytest.raises(ValueError, match="duration"):
            parse_period_s(bad)
