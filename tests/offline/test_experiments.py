"""
The analysis of experiments, on simulated users with planted tastes and position bias.

The seeds are fixed. The bounds are those that the analysis promises.
"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offline.experiments.analysis import analyse, value_of
from offline.experiments.checks import MISMATCH, adjust, check_ratio
from offline.experiments.sample_size import plan_users
from offline.experiments.sequences import LEAST_USERS, Sample, compare, compare_relative, effective_users, stretch
from recstore.exposures.records import ExposureOutcome, ItemOutcome
from recsys.contracts.wire import Exploration
from recsys.experiments.declaration import Arm, Experiment
from tests.offline.simulated_users import Draws, World, act
from topk.item_table import F64

RUNS = 1000
LISTS = 4


def simulate_values(*, lift: float = 0.0, users: int = 100_000, seed: int = 0) -> tuple[F64, F64]:
    """Return the actions per list of users in an experiment whose tastes are raised by *lift*, and those before it."""
    rng = np.random.default_rng(seed)
    world = World.make(seed=2)
    raised = World(world.tastes * (1 + lift), world.attention, world.pools, world.scores)
    draws = Draws.of(world, Exploration())
    shown, _ = act(raised, draws, rng, users=users, each=LISTS, spread=0.4)
    per_user = shown.rewards.sum(axis=1).reshape(users, LISTS)
    # The first half of the lists stands for the time before the experiment.
    return per_user[:, LISTS // 2 :].mean(axis=1), per_user[:, : LISTS // 2].mean(axis=1)


def run_experiments(one: F64, other: F64, *, users: int, planned: float, seed: int) -> tuple[F64, F64]:
    """
    Return the ends of the intervals of the difference (other - one) of `RUNS` experiments after each pair of users.

    Users of the two populations join in turn. The columns are the looks, from `LEAST_USERS` users in each arm on.
    """
    rng = np.random.default_rng(seed)
    counts = np.arange(1, users + 1, dtype=np.float64)
    differences, errors = np.zeros((RUNS, users)), np.zeros((RUNS, users))
    for sign, population in ((-1.0, one), (1.0, other)):
        drawn = population[rng.integers(population.size, size=(RUNS, users))]
        means = np.cumsum(drawn, axis=1) / counts
        differences += sign * means
        errors += np.maximum(np.cumsum(drawn**2, axis=1) / counts - means**2, 0) / np.maximum(counts - 1, 1)
    half = np.sqrt(errors) * stretch(effective_users(counts, counts), planned=planned)
    return (differences - half)[:, LEAST_USERS - 1 :], (differences + half)[:, LEAST_USERS - 1 :]


@pytest.fixture(scope="module")
def populations() -> tuple[F64, F64]:
    """The values of the users of the control, and of an arm that raises all tastes by 10 %."""
    return simulate_values()[0], simulate_values(lift=0.1, seed=1)[0]


def test_experiments_without_a_difference_raise_few_alarms(populations):
    """Of 1,000 experiments with equal arms and a look after each pair of users, at most 5 % find a difference."""
    control, _ = populations
    low, high = run_experiments(control, control, users=2000, planned=1000, seed=3)
    alarms = ((low > 0) | (high < 0)).any(axis=1).mean()
    assert alarms <= 0.05
    # Intervals of a single look would raise more than that, so the looks are many.
    narrow = 1.96 / stretch(effective_users(np.arange(100.0, 2001), np.arange(100.0, 2001)), planned=1000)
    middle, half = (low + high) / 2, (high - low) / 2
    assert (np.abs(middle) > half * narrow).any(axis=1).mean() > 0.15


def test_sequences_cover_a_planted_difference(populations):
    """The intervals of 1,000 experiments contain the true difference at all looks in at least 95 %."""
    control, arm = populations
    truth = arm.mean() - control.mean()
    low, high = run_experiments(control, arm, users=2000, planned=1000, seed=4)
    assert ((low < truth) & (truth < high)).all(axis=1).mean() >= 0.95


def test_the_planned_size_finds_the_lift(populations):
    """A planted lift of 10 % is found with probability of at least 0.8 at the planner's size, also by the last look alone."""
    control, arm = populations
    assert arm.mean() / control.mean() == pytest.approx(1.1, abs=0.02)
    users = plan_users(float(control.mean()), float(control.std()), lift=0.1)
    low, _ = run_experiments(control, arm, users=users // 2, planned=users / 4, seed=5)
    assert (low > 0).any(axis=1).mean() >= 0.8
    assert (low[:, -1] > 0).mean() >= 0.8
    # A third of the users does not do: the planner asks for no more than it takes.
    assert (low[:, : users // 6 - LEAST_USERS] > 0).any(axis=1).mean() < 0.5


def test_the_plan_follows_its_inputs():
    """Half the lift takes four times the users, uneven or further arms take more, and no plan is below the least."""
    even = plan_users(0.5, 0.5, lift=0.1)
    assert plan_users(0.5, 0.5, lift=0.05) == pytest.approx(4 * even, rel=1e-3)
    assert plan_users(0.5, 0.5, lift=0.1, shares=(0.9, 0.1)) > 2 * even
    assert plan_users(0.5, 0.5, lift=0.1, shares=(1 / 3, 1 / 3, 1 / 3)) > even
    assert plan_users(0.5, 0.001, lift=1.0) == 2 * LEAST_USERS
    # By hand: (3.0353 + 1.0364)^2 standard errors of 4 x 0.25 / (0.5 x 0.1)^2.
    assert even == pytest.approx(4.0717**2 * 4 * 0.25 / 0.0025, rel=1e-3)


def test_the_interval_is_narrowest_at_the_plan():
    """Around the planned number of users, other plans give wider intervals; arms below the least number have no interval."""
    widths = {planned: stretch(1000.0, planned=planned) for planned in (10.0, 100.0, 1000.0, 10_000.0, 100_000.0)}
    assert min(widths, key=widths.__getitem__) == 1000.0
    assert stretch(1000.0, planned=1000.0) == pytest.approx(3.0353, abs=1e-3)
    few, many = Sample(99, 1.0, 1.0), Sample(10_000, 1.0, 1.0)
    assert compare(few, many, planned=1000) is None
    found = compare(many, Sample(10_000, 0.5, 1.0), planned=5000)
    assert found is not None
    assert 0 < found.low < found.value == 0.5 < found.high


@pytest.mark.parametrize("change", [-0.5, 0.0, 0.5, 2.0])
def test_the_relative_change_is_covered(change):
    """The intervals of the relative change of 300 experiments contain it at all looks in at least 95 %, also a large one."""
    rng = np.random.default_rng(8)
    covered = divided = 0
    for _ in range(300):
        control, arm = (rng.poisson(0.5 * each, 1000).astype(np.float64) for each in (1, 1 + change))
        samples = [(Sample.of(arm[:users]), Sample.of(control[:users])) for users in range(LEAST_USERS, 1001, 20)]
        covered += all(
            each is not None and each.low <= change <= each.high
            for each in (compare_relative(*pair, planned=500) for pair in samples)
        )
        divided += all(
            each is not None and each.low / pair[1].mean <= change <= each.high / pair[1].mean
            for pair in samples
            for each in [compare(*pair, planned=500)]
        )
    assert covered >= 0.95 * 300
    # The interval of the difference, divided by the mean of the control, misses a large change.
    assert change < 2 or divided < 0.8 * 300


@given(
    arm=st.builds(Sample, st.integers(100, 5000), st.floats(0, 3), st.floats(0.01, 4)),
    control=st.builds(Sample, st.integers(100, 5000), st.floats(0.01, 3), st.floats(0.01, 4)),
)
def test_the_relative_interval_agrees_with_the_difference(arm, control):
    """The interval of the change contains the change, and lies on the same side of 0 as that of the difference."""
    difference, change = compare(arm, control, planned=1000), compare_relative(arm, control, planned=1000)
    assert difference is not None
    if change is not None:
        assert change.low <= change.value <= change.high
        if min(abs(difference.low), abs(difference.high)) > 1e-6:
            assert (change.low > 0, change.high < 0) == (difference.low > 0, difference.high < 0)


def test_a_control_without_actions_has_no_relative_change():
    """If the mean of the control may be 0, the arm can still be better, and the change has no interval."""
    lists = log(1000, red_clicks=4, blue_clicks=0)
    red = analyse(COLOURS, lists, kinds=CLICKS).arms[1]
    assert (red.is_better, red.change) == (True, None)


def test_the_ratio_check_seldom_errs_and_finds_a_mismatch():
    """With true shares, looks after each user alarm in at most 0.1 %; arms of 48 % and 52 % are found."""
    rng = np.random.default_rng(6)
    alarms = 0
    for _ in range(300):
        first = np.cumsum(rng.random(2000) < 0.5)
        alarms += any(
            check_ratio([int(first[n - 1]), n - int(first[n - 1])], [0.5, 0.5]) < MISMATCH
            for n in range(100, 2001, 100)
        )
    assert alarms <= 2
    assert check_ratio([0, 0], [0.5, 0.5]) == 1.0
    assert check_ratio([4800, 5200], [0.5, 0.5]) > MISMATCH > check_ratio([9600, 10_400], [0.5, 0.5])
    assert check_ratio([700, 100, 200], [0.7, 0.1, 0.2]) == 1.0


def test_history_narrows_the_interval_and_moves_no_mean():
    """Adjusting by the actions before the experiment keeps the difference of the arms, and lowers the variance."""
    values, before = simulate_values(users=20_000)
    assert np.corrcoef(values, before)[0, 1] > 0.1
    adjusted = adjust(values, before)
    assert adjusted.var() < values.var() * (1 - 0.9 * np.corrcoef(values, before)[0, 1] ** 2)
    assert adjusted.mean() == pytest.approx(values.mean())
    halves = np.arange(values.size) % 2 == 0
    change = adjusted[halves].mean() - adjusted[~halves].mean() - (values[halves].mean() - values[~halves].mean())
    assert abs(change) < 4 * values.std() / math.sqrt(values.size)
    unknown = np.full(values.size, np.nan)
    assert (adjust(values, unknown) == values).all()
    unknown[:10] = before[:10]
    assert (adjust(values, unknown)[10:] == values[10:]).all()


HOUR_US = 3_600_000_000
COLOURS = Experiment("colours", (Arm("blue", 0.5), Arm("red", 0.5)), users=400)
CLICKS = frozenset({"click"})


def shown(user: str, hour: int, arm: str | None, *outcomes: str, experiment: str = "colours") -> ExposureOutcome:
    items = (ItemOutcome("a", 1, 1.0, outcomes), ItemOutcome("b", 2, 1.0, ("view",)))
    named = experiment if arm else None
    return ExposureOutcome(f"{user}/{hour}", user, hour * HOUR_US, "ials", "1", named, arm, items)


def test_a_user_is_one_observation():
    """The value is the mean over the lists in the time followed; earlier lists are history, other experiments none."""
    lists = [
        shown("ann", 0, None, "click"),
        shown("ann", 1, None),
        shown("ann", 2, "red", "click", "click"),
        shown("ann", 5, "red"),
        shown("ann", 26, "red", "click"),
    ]
    found = value_of("colours", lists, kinds=CLICKS, followed_us=24 * HOUR_US)
    assert found is not None
    assert (found.arm, found.first_us, found.value, found.before, found.switched) == (
        "red", 2 * HOUR_US, 0.5, 0.5, False
    )  # fmt: skip
    assert value_of("other", lists, kinds=CLICKS, followed_us=1) is None
    joined = shown("ann", 3, "old,red", experiment="layout,colours")
    assert value_of("colours", [joined], kinds=CLICKS, followed_us=1) is not None
    moved = value_of("colours", [*lists, shown("ann", 30, "blue")], kinds=CLICKS, followed_us=1)
    assert moved is not None
    assert moved.switched


def log(users: int, *, red_clicks: int, blue_clicks: int) -> list[ExposureOutcome]:
    """Return a list of each user; *red_clicks* of ten users of an arm click."""
    lists = []
    for number in range(users):
        arm, clicks = ("red", red_clicks) if number % 2 else ("blue", blue_clicks)
        lists.append(shown(f"u{number:05}", 0, arm, *(["click"] if number // 2 % 10 < clicks else [])))
    return [*lists, shown("zoe", 48, None)]


def test_a_worse_arm_is_found_and_a_better_one():
    """The interval of an arm with half the clicks lies below 0; twice the clicks put it above."""
    worse = analyse(COLOURS, log(1000, red_clicks=2, blue_clicks=4), kinds=CLICKS)
    control, red = worse.arms
    assert (control.name, control.sample.users, control.sample.mean) == ("blue", 500, 0.4)
    assert (red.is_worse, red.is_better, worse.is_sound) == (True, False, True)
    better = analyse(COLOURS, log(1000, red_clicks=4, blue_clicks=2), kinds=CLICKS)
    assert better.arms[1].is_better
    assert control.lift is None


def test_users_count_when_their_time_is_over():
    """A user who came within the time followed before the newest list waits, and few users give no interval."""
    found = analyse(COLOURS, log(100, red_clicks=3, blue_clicks=3), kinds=CLICKS, followed_us=49 * HOUR_US)
    assert (found.waiting, [arm.sample.users for arm in found.arms]) == (100, [0, 0])
    few = analyse(COLOURS, log(100, red_clicks=10, blue_clicks=0), kinds=CLICKS)
    assert (few.waiting, few.arms[1].lift) == (0, None)


def test_an_unsound_experiment_is_named():
    """Users in two arms and arms of the wrong size make the experiment unsound."""
    lists = log(1000, red_clicks=3, blue_clicks=3)
    lopsided = Experiment("colours", (Arm("blue", 0.3), Arm("red", 0.7)))
    assert not analyse(lopsided, lists, kinds=CLICKS).is_sound
    switched = [lists[0], shown("u00000", 1, "red"), *lists[1:]]
    found = analyse(COLOURS, switched, kinds=CLICKS)
    assert (found.switched, found.is_sound) == (1, False)
    empty = analyse(COLOURS, [], kinds=CLICKS)
    assert ([arm.sample.users for arm in empty.arms], empty.mismatch) == ([0, 0], 1.0)
