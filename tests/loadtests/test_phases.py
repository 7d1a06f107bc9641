"""The shapes of a load test, and the due times of an open loop."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.arrivals import due_times
from loadtests.phases import SHAPES, Phase, level_at, users_at

SPIKE = SHAPES["spike"].phases


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_phases_fill_the_run(shape):
    """The phases of each shape add up to the whole run, and the highest of them is at full load."""
    assert sum(phase.share for phase in shape.phases) == pytest.approx(1.0)
    assert max(phase.level for phase in shape.phases) == 1.0
    assert all(0 < phase.level <= 1 for phase in shape.phases)


def test_a_steady_run_is_constant():
    """A steady run has all its users from start to end."""
    assert {users_at(SHAPES["steady"].phases, t, duration_s=10, users=7) for t in (0, 5, 9.999)} == {7}


def test_steps_rise_evenly():
    """A step run rises to its users in five equal steps."""
    seen = [users_at(SHAPES["step"].phases, second + 0.5, duration_s=10, users=50) for second in range(10)]
    assert seen == [10, 10, 20, 20, 30, 30, 40, 40, 50, 50]


def test_a_spike_is_ten_times_the_quiet_load():
    """A spike starts with a tenth of the users, rises to all, and returns to a tenth."""
    seen = [users_at(SPIKE, second, duration_s=100, users=40) for second in (0, 24.9, 25, 69.9, 70, 99)]
    assert seen == [4, 4, 40, 40, 4, 4]


def test_a_soak_runs_mostly_at_full_load():
    """A soak rises for a sixteenth of its time and stays at full load."""
    seen = [users_at(SHAPES["soak"].phases, second, duration_s=1000, users=100) or 0 for second in range(1000)]
    assert seen == sorted(seen)
    assert seen.count(100) == 940


def test_every_shape_ends():
    """No shape has load after its duration."""
    assert all(level_at(shape.phases, 60, duration_s=60) is None for shape in SHAPES.values())


def test_the_last_phase_extends_to_the_end():
    """Rounding errors in the shares leave no gap at the end of the run."""
    thirds = [Phase(0.1, 0.5)] * 3 + [Phase(0.7, 1.0)]
    assert level_at(thirds, 1e9 * (1 - 1e-16), duration_s=1e9) in {1.0, None}
    assert level_at([Phase(0.3, 0.2), Phase(0.69, 0.4)], 9.95, duration_s=10) == 0.4


def test_a_phase_has_at_least_one_user():
    """A tenth of three users is rounded up to one."""
    assert users_at(SPIKE, 0, duration_s=10, users=3) == 1


def test_constant_arrivals_are_evenly_spaced():
    """Ten requests per second are due every 100 ms."""
    due = list(due_times([Phase(1.0, 1.0)], rate=10, duration_s=2, pattern="constant", rng=random.Random(0)))
    assert due == pytest.approx([number / 10 for number in range(1, 20)])


def test_constant_arrivals_follow_the_shape():
    """Each phase has its own rate, and no request is lost between phases."""
    due = list(due_times(SPIKE, rate=100, duration_s=100, pattern="constant", rng=random.Random(0)))
    assert [sum(low <= t < high for t in due) for low, high in ((0, 25), (25, 70), (70, 100))] == pytest.approx(
        [250, 4500, 300], abs=1
    )


def test_poisson_arrivals_have_the_right_variance():
    """The counts per second have the rate as their mean and variance, and the gaps are exponentially distributed."""
    due = list(due_times([Phase(1.0, 1.0)], rate=50, duration_s=400, pattern="poisson", rng=random.Random(4)))
    counts = [0] * 400
    for moment in due:
        counts[int(moment)] += 1
    mean = sum(counts) / 400
    variance = sum((count - mean) ** 2 for count in counts) / 399
    assert mean == pytest.approx(50, rel=0.05)
    assert variance == pytest.approx(50, rel=0.25)
    gaps = [later - earlier for earlier, later in itertools.pairwise(due)]
    # The coefficient of variation is 1 for an exponential distribution and 0 for even spacing.
    spread = (sum(gap**2 for gap in gaps) / len(gaps)) ** 0.5 / (sum(gaps) / len(gaps))
    assert spread == pytest.approx(2**0.5, rel=0.05)


@given(
    rate=st.floats(0.5, 200),
    duration_s=st.floats(0.5, 20),
    pattern=st.sampled_from(["poisson", "constant"]),
    shape=st.sampled_from(list(SHAPES.values())),
    seed=st.integers(0, 100),
)
def test_arrivals_are_ordered_and_within_the_run(rate, duration_s, pattern, shape, seed):
    """Due times of any shape are ascending, within the run, and the same for the same seed."""
    first, second = (
        list(due_times(shape.phases, rate=rate, duration_s=duration_s, pattern=pattern, rng=random.Random(seed)))
        for _ in range(2)
    )
    assert first == second == sorted(first)
    assert all(0 <= moment <= duration_s * (1 + 1e-9) for moment in first)
