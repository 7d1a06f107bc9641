"""Annotations: what they resolve to, and which ones Knative's webhook refuses."""

import pytest

from localkn.kpa import Settings
from localkn.kpa.settings import faults
from localkn.quantities import parse_duration_ns, parse_quantity


def annotated(**values: str) -> dict[str, str]:
    return {f"autoscaling.knative.dev/{name.replace('_', '-')}": value for name, value in values.items()}


def resolve(container_concurrency: int = 0, **values: str) -> Settings:
    return Settings.from_annotations(annotated(**values), container_concurrency=container_concurrency)


def test_the_defaults_are_knatives() -> None:
    """Without annotations the cluster's configuration holds."""
    assert resolve() == Settings()
    assert (resolve().target, resolve().target_burst_capacity, resolve().panic_window_s) == (70, 211, 6)


def test_utilisation_applies_to_hard_and_soft_limits() -> None:
    """Seventy percent of containerConcurrency, of the target, or of the smaller of both."""
    assert resolve(10).target == 7
    assert resolve(target="10").target == 7
    assert (resolve(4, target="10").total, resolve(40, target="10").total) == (4, 10)
    assert (resolve(4, metric="rps").total, resolve(4, metric="rps", target="10").total) == (200, 10)
    assert resolve(target="0.01").target == 0.01


def test_windows_are_rounded_to_seconds() -> None:
    """The panic window is a share of the stable one, a second at least."""
    assert resolve(window="45s").panic_window_s == 5
    assert resolve(window="6s", panic_window_percentage="1").panic_window_s == 1
    assert resolve(window="1m30s").stable_window_s == 90


def test_old_spellings_are_read_and_new_ones_win() -> None:
    """CamelCase annotations work as long as the kebab-case one is absent."""
    old = {"autoscaling.knative.dev/minScale": "2", "autoscaling.knative.dev/targetUtilizationPercentage": "50"}
    assert Settings.from_annotations(old, container_concurrency=0).min_scale == 2
    both = old | annotated(min_scale="3")
    resolved = Settings.from_annotations(both, container_concurrency=0)
    assert (resolved.min_scale, resolved.target) == (3, 50)


def test_bounds_forget_the_minimum_of_an_unreachable_revision() -> None:
    """A revision without traffic may go below min-scale, never above max-scale."""
    settings = resolve(min_scale="2", max_scale="4")
    assert [settings.bounded(n, reachable=True) for n in (0, 3, 9)] == [2, 3, 4]
    assert [settings.bounded(n, reachable=False) for n in (0, 9)] == [0, 4]
    assert resolve().bounded(99, reachable=True) == 99


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("class", "vpa.autoscaling.knative.dev"),
        ("metric", "cpu"),
        ("min_scale", "-1"),
        ("min_scale", "1.5"),
        ("max_scale", "9999999999"),
        ("initial_scale", "0"),
        ("activation_scale", "1"),
        ("activation_scale", "two"),
        ("target", "0"),
        ("target", "many"),
        ("target", "nan"),
        ("target_utilization_percentage", "101"),
        ("target_burst_capacity", "-2"),
        ("panic_window_percentage", "0.5"),
        ("panic_threshold_percentage", "100"),
        ("window", "5s"),
        ("window", "61m"),
        ("window", "6500ms"),
        ("window", "60"),
        ("scale_down_delay", "-1s"),
        ("scale_down_delay", "1500ms"),
        ("scale_to_zero_pod_retention_period", "2h"),
    ],
)
def test_one_bad_value_is_one_fault(name: str, value: str) -> None:
    """Each limit of Knative's webhook is held, and the fault names the annotation."""
    ((key, reason),) = faults(annotated(**{name: value}))
    assert key == f"autoscaling.knative.dev/{name.replace('_', '-')}"
    assert value in reason


@pytest.mark.parametrize(
    "values",
    [
        {"min_scale": "3", "max_scale": "2"},
        {"activation_scale": "2", "min_scale": "3"},
        {"activation_scale": "5", "max_scale": "3"},
        {"class": "kpa.autoscaling.knative.dev", "metric_aggregation_algorithm": "quadratic"},
    ],
)
def test_values_that_contradict_each_other_are_refused(values: dict[str, str]) -> None:
    """Bounds must be in order, and an algorithm known where the class is spelled out."""
    assert len(faults(annotated(**values))) == 1


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"target_burst_capacity": "-1", "max_scale": "0", "min_scale": "7"},
        {"class": "hpa.autoscaling.knative.dev", "metric": "cpu"},
        {"class": "mine.example.com", "metric": "queue"},
        {"metric_aggregation_algorithm": "quadratic"},
        {"scale_to_zero_pod_retention_period": "1m0.5s", "scale_down_delay": "0", "window": "1h"},
        {"something_new": "1"},
    ],
)
def test_what_knative_lets_through_is_let_through(values: dict[str, str]) -> None:
    """The checks are no stricter than the webhook's."""
    assert faults(annotated(**values)) == []


def test_durations_and_quantities() -> None:
    """Go durations and Kubernetes quantities are read exactly; anything else is an error."""
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
