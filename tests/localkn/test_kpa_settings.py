"""Autoscaling settings resolved from annotations."""

from localkn.kpa import Settings


def annotated(**values: str) -> dict[str, str]:
    return {f"autoscaling.knative.dev/{name.replace('_', '-')}": value for name, value in values.items()}


def resolve(container_concurrency: int = 0, **values: str) -> Settings:
    return Settings.from_annotations(annotated(**values), container_concurrency=container_concurrency)


def test_the_defaults_are_knatives() -> None:
    """Without annotations the settings are those of the cluster's default configuration."""
    assert resolve() == Settings()
    assert (resolve().target, resolve().target_burst_capacity, resolve().panic_window_s) == (70, 211, 6)


def test_utilization_applies_to_hard_and_soft_limits() -> None:
    """The target is seventy percent of containerConcurrency, of the target annotation, or of the smaller one."""
    assert resolve(10).target == 7
    assert resolve(target="10").target == 7
    assert (resolve(4, target="10").total, resolve(40, target="10").total) == (4, 10)
    assert (resolve(4, metric="rps").total, resolve(4, metric="rps", target="10").total) == (200, 10)
    assert resolve(target="0.01").target == 0.01


def test_windows_are_rounded_to_seconds() -> None:
    """The panic window is a share of the stable window, and at least one second."""
    assert resolve(window="45s").panic_window_s == 5
    assert resolve(window="6s", panic_window_percentage="1").panic_window_s == 1
    assert resolve(window="1m30s").stable_window_s == 90


def test_older_spellings_are_read_and_newer_ones_win() -> None:
    """A camelCase annotation applies while the kebab-case one is absent."""
    old = {"autoscaling.knative.dev/minScale": "2", "autoscaling.knative.dev/targetUtilizationPercentage": "50"}
    assert Settings.from_annotations(old, container_concurrency=0).min_scale == 2
    both = old | annotated(min_scale="3")
    resolved = Settings.from_annotations(both, container_concurrency=0)
    assert (resolved.min_scale, resolved.target) == (3, 50)


def test_an_unreachable_revision_ignores_the_minimum() -> None:
    """A revision without traffic may scale below min-scale, but never above max-scale."""
    settings = resolve(min_scale="2", max_scale="4")
    assert [settings.bounded(n, reachable=True) for n in (0, 3, 9)] == [2, 3, 4]
    assert [settings.bounded(n, reachable=False) for n in (0, 9)] == [0, 4]
    assert resolve().bounded(99, reachable=True) == 99
