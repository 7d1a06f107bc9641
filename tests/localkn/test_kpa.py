"""The autoscaler compared with the vectors of Knative's own tests (autoscaler_test.go, bucketing_test.go)."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localkn.kpa import Autoscaler, ScaleDecision, Settings
from localkn.kpa.windows import LinearWindow, MaximumWindow, WeightedWindow

# The scale rates of Knative's tests; total is the capacity of one instance.
BASE = Settings(max_scale_up_rate=10.0, max_scale_down_rate=10.0)


def settings_for(target: float, *, tbc: float = 0, **changes: float) -> Settings:
    return replace(BASE, target=target, total=target / 0.75, target_burst_capacity=tbc, **changes)  # type: ignore[arg-type]


class Measured:
    """An autoscaler whose two averages are set directly, as by Knative's fake metric client."""

    def __init__(self, settings: Settings, *, reachable: bool = True) -> None:
        self.autoscaler = Autoscaler(settings, reachable=reachable)

    def decide(self, stable: float, panic: float, *, ready: int = 1, at: float = 0) -> ScaleDecision:
        self.autoscaler.stable = _Fixed(stable)
        self.autoscaler.panic = _Fixed(panic)
        return self.autoscaler.decide(at, ready=ready)


class _Fixed(LinearWindow):
    def __init__(self, value: float) -> None:
        super().__init__(60)
        self._value = value

    def is_empty(self, second: int) -> bool:
        return False

    def average(self, second: int) -> float:
        return self._value


@pytest.mark.parametrize(
    ("measured", "target", "ready", "tbc", "want"),
    [
        ((50, 50), 10, 1, 100, (5, math.floor(10 / 0.75 - 100 - 50))),
        ((50, 49), 10, 1, 0, (5, 0)),
        ((21, 26), 181, 1, -1, (1, -1)),
        ((1000, 888), 10, 0, 100, (10, -100 - 888)),
        ((1, 1), 10, 100, 0, (10, 0)),
        ((1, 1), 10, 10, 0, (1, 0)),
    ],
)
def test_a_single_decision_equals_knatives(
    measured: tuple[float, float], target: float, ready: int, tbc: float, want: tuple[int, int]
) -> None:
    """One tick gives the number of pods and the excess burst capacity of Knative's table."""
    decision = Measured(settings_for(target, tbc=tbc)).decide(*measured, ready=ready)
    assert (decision.desired, decision.excess_burst_capacity) == want


def test_the_stable_window_scales_up_and_down() -> None:
    """Outside panic mode only the stable average decides."""
    measured = Measured(settings_for(10, tbc=101))
    assert measured.decide(50, 10).desired == 5
    assert measured.decide(100, 10).desired == 10
    measured = Measured(settings_for(10, tbc=75))
    assert [measured.decide(1, 0).desired, measured.decide(0, 0).desired] == [1, 0]


def test_activation_scale_applies_only_under_load() -> None:
    """The first request starts activation-scale pods, and no request starts none."""
    measured = Measured(settings_for(10, activation_scale=2))
    assert [measured.decide(0, 0).desired, measured.decide(1, 0).desired] == [0, 2]


def test_panic_holds_for_a_stable_window_after_the_last_threshold() -> None:
    """The number of pods does not fall in panic mode, which ends after a full stable window below the threshold."""
    measured = Measured(settings_for(1, tbc=98))
    assert measured.decide(11, 25, ready=10, at=0).desired == 25
    assert measured.decide(30, 41, ready=40, at=30).desired == 41
    assert measured.decide(50, 56, ready=55, at=62) == ScaleDecision(
        valid=True, stable=50, panic=56, desired=50, excess_burst_capacity=math.floor(55 / 0.75 - 98 - 56)
    )


def test_panic_is_extended_by_a_second_surge() -> None:
    """A second crossing of the threshold moves the end of panic mode."""
    measured = Measured(settings_for(1, tbc=98))
    measured.decide(11, 25, ready=10, at=0)
    assert measured.decide(30, 80, ready=40, at=30).desired == 80
    assert measured.decide(1, 1, ready=80, at=62).panicking
    assert not measured.decide(1, 1, ready=80, at=90.1).panicking


def test_the_scale_rates_limit_a_tick() -> None:
    """A tick multiplies or divides the number of pods by the rate at most, and may always add or remove one pod."""
    measured = Measured(settings_for(10))
    assert [measured.decide(1000, 1001).desired, measured.decide(1000, 1001, ready=10).desired] == [10, 100]
    assert Measured(settings_for(1, max_scale_up_rate=1.1)).decide(3, 3.1, ready=2).desired == 3
    slow = settings_for(10, max_scale_down_rate=1.1)
    assert Measured(slow).decide(1, 1, ready=100).desired == 90
    assert Measured(slow, reachable=False).decide(1, 1, ready=100).desired == 1


def test_scale_down_waits_for_the_delay() -> None:
    """Within scale-down-delay the largest decision applies; an unreachable revision scales down immediately."""
    patient = settings_for(10, scale_down_delay_s=300, panic_threshold=100)
    measured, gone = Measured(patient), Measured(patient, reachable=False)
    timeline = [(2, 40, 4), (300, 0, 4), (302, 0, 0), (540, 40, 4), (600, 30, 4), (660, 0, 4), (840, 0, 3), (900, 0, 0)]
    assert [measured.decide(load, load, at=at).desired for at, load, _ in timeline] == [want for *_, want in timeline]
    assert [gone.decide(40, 40, at=2).desired, gone.decide(0, 0, at=4).desired] == [4, 0]


def test_an_empty_window_decides_nothing() -> None:
    """An empty stable window gives an invalid decision."""
    autoscaler = Autoscaler(settings_for(1))
    assert autoscaler.decide(10, ready=3) == ScaleDecision()
    autoscaler.record(10, 5)
    assert autoscaler.decide(70, ready=3).valid
    assert not autoscaler.decide(71, ready=3).valid


def test_the_linear_window_follows_knatives_buckets() -> None:
    """Partial windows, a missing tail, expiry and late values behave as in bucketing_test.go."""
    window = LinearWindow(5)
    window.record(100, 1)
    assert window.average(100) == 1
    for second in range(1, 5):
        window.record(100 + second, second + 1)
    assert [window.average(100 + second) for second in (4, 6, 8, 9)] == [3, 4, 5, 0]
    window.record(106, 91)
    assert window.average(106) == (4 + 5 + 0 + 91 + 3) / 5
    window.record(1000, 1984)
    window.record(997, 4)
    window.record(990, 10**6)
    assert window.average(1000) == (4 + 1984) / 4


def test_weights_decay_and_are_not_normalised() -> None:
    """The newest bucket weighs 0.78 in a window of six seconds and 0.2 in a long window."""
    window = WeightedWindow(6)
    window.record(10, 1)
    assert window.average(10) == pytest.approx(0.78456, abs=1e-5)
    assert window.average(11) == pytest.approx(0.78456 * 0.21544, abs=1e-5)
    assert window.average(16) == window.average(17) == 0
    long = WeightedWindow(60)
    long.record(10, 1)
    assert long.average(10) == pytest.approx(0.2)


@given(st.integers(1, 6), st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=40))
def test_the_maximum_window_returns_the_maximum(size: int, steps: list[tuple[int, int]]) -> None:
    """The result is the largest value of the last *size* indices."""
    window, seen, index = MaximumWindow(size), list[tuple[int, int]](), 0
    for step, value in steps:
        index += step
        seen.append((index, value))
        assert window.record(index, value) == max(v for i, v in seen if i > index - size)


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(0, 50)), min_size=1, max_size=60), st.integers(0, 8))
def test_the_linear_window_equals_a_plain_average(steps: list[tuple[int, float]], later: int) -> None:
    """The incremental totals equal an average calculated from the recorded seconds."""
    size, window, buckets, second, first = 6, LinearWindow(6), dict[int, float](), 100, 100
    for step, value in steps:
        if step >= size or not buckets:
            first = second + step
        second += step
        window.record(second, value)
        buckets[second] = buckets.get(second, 0) + value
    now = second + later
    held = [buckets.get(s, 0.0) for s in range(max(first, now - size + 1), second + 1)]
    expected = sum(held) / min(second - first + 1, size - later) if held else 0.0
    assert window.average(now) == pytest.approx(expected, abs=1e-6)
