"""The measurement of what the analysis of experiments finds."""

import statistics
from collections import Counter

import pytest

from offline.experiments.analysis import UserValue
from recsys.experiments.assignment import arm_of
from recsys.experiments.declaration import Arm, Experiment, find_contradictions
from tools.bench.experiments import Scale, look, make_experiments, make_newcomers, raise_activity

ARMS = (Arm("control", 0.5), Arm("raised", 0.5))


def values(count: int, *, raised: float) -> list[UserValue]:
    """Return users of both arms in turn. One in ten does nothing. *raised* is added in the second arm."""
    before = float("nan")
    return [
        UserValue(ARMS[n % 2].name, n, (n // 2 % 10 > 0) + raised * (n % 2), before, switched=False)
        for n in range(count)
    ]


def test_each_experiment_gets_its_users_and_each_raised_arm_a_lift():
    """People come until each experiment has the planned users; each raised arm adds 10 %, and the mean activity is 1."""
    experiments = make_experiments(Scale(layers=3, slices=4), planned=50)
    assert list(find_contradictions(experiments)) == []
    activity = raise_activity(experiments, "user")
    arms = {user: [arm for each in experiments if (arm := arm_of(each, user))] for user in activity}
    assert {len(own) for own in arms.values()} == {3}
    lifts = {user: activity[user] * 1.05**3 for user in activity}
    assert all(lifts[user] == pytest.approx(1.1 ** Counter(own)[ARMS[1]]) for user, own in arms.items())
    assert statistics.fmean(activity.values()) == pytest.approx(1, abs=0.02)
    members = Counter(each.name for user in activity for each in experiments if arm_of(each, user))
    assert min(members.values()) == 50
    assert len(raise_activity(experiments, "pilot", least=900)) == 900
    people = make_newcomers(activity)
    assert people.favourites.keys() == people.activity.keys() == activity.keys()
    assert len({*people.favourites.values()}) == 10


def test_looks_find_a_difference_and_miss_another_truth():
    """Looks tell on which side of 0 an interval lay, whether one missed the truth, and whether the arms are sound."""
    experiment = Experiment("lift", ARMS, users=1000)
    found = look(experiment, values(1000, raised=0.2), truth=0.2)
    assert (found.above, found.below, found.missed, found.unsound) == (True, False, False, False)
    worse = look(experiment, values(1000, raised=-0.2), truth=0.0)
    assert (worse.above, worse.below, worse.missed) == (False, True, True)
    equal = look(experiment, values(1000, raised=0.0), truth=0.0)
    assert (equal.above, equal.below, equal.missed) == (False, False, False)
    lopsided = [each for each in values(2000, raised=0.0) if each.arm == "control" or each.first_us % 3]
    assert look(experiment, lopsided, truth=0.0).unsound
