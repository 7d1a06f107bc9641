"""The guardrails of an experiment on failed and slow answers, with figures that are made up."""

import numpy as np
import pytest

from offline.experiments.health import ArmHealth, check_health, reasons
from recstore.exposures.records import ExposureOutcome
from recsys.experiments.declaration import Arm, Experiment

COLOURS = Experiment("colours", (Arm("blue", 0.5), Arm("red", 0.5, diversity=0.5)), users=2000, started_us=10)


def shown(user: str, arm: str, *, took_s: float | None = 0.02, failed: bool = False, at: int = 20) -> ExposureOutcome:
    took_us = None if took_s is None else round(took_s * 1e6)
    return ExposureOutcome(f"{user}/{at}", user, at, "ials", "1", "colours", arm, (), took_us, failed)


def lists(rng: np.random.Generator, *, users: int, slower: float = 1.0, failing: float = 0.0) -> list[ExposureOutcome]:
    """Return two lists of each user; those of the arm red take *slower* times as long and fail with *failing*."""
    made = []
    for number in range(users):
        arm = ("blue", "red")[number % 2]
        for at in (20, 30):
            took_s = 0.02 * float(rng.lognormal(0.0, 0.6)) * (slower if arm == "red" else 1.0)
            failed = bool(rng.random() < (failing if arm == "red" else 0.01))
            made.append(shown(f"u{number}", arm, took_s=took_s, failed=failed, at=at))
    return made


def red(found: list[ArmHealth]) -> ArmHealth:
    return found[1]


def test_equal_arms_are_stopped_in_few_of_many_experiments():
    """With equal arms, a look after each hundred users raises a false alarm in at most 5 % of 100 experiments."""
    alarms = 0
    for seed in range(100):
        made = lists(np.random.default_rng(seed), users=1000, failing=0.01)
        alarms += any(reasons(check_health(COLOURS, made[: 2 * users])) for users in range(200, 1001, 200))
    assert alarms <= 5


@pytest.mark.parametrize(
    ("slower", "failing", "slow", "fails"),
    [(3.0, 0.01, True, False), (1.0, 0.15, False, True), (3.0, 0.15, True, True), (1.1, 0.01, False, False)],
)
def test_an_arm_that_is_slower_or_fails_more_often_is_found(slower, failing, slow, fails):
    """Three times the time and fifteen times the failures are found in a thousand users, a tenth more time is not."""
    found = red(check_health(COLOURS, lists(np.random.default_rng(7), users=1000, slower=slower, failing=failing)))
    assert (found.is_slow, found.is_failing) == (slow, fails)


def test_the_figures_are_those_of_the_lists():
    """Number of lists, share of failures and 99th percentile belong to the arm, and earlier lists do not count."""
    made = [shown(f"b{number}", "blue", took_s=number / 1000, failed=number < 25) for number in range(200)]
    made += [shown(f"r{number}", "red", took_s=None) for number in range(200)]
    made += [shown("old", "blue", took_s=9.0, failed=True, at=9)]
    blue, other = check_health(COLOURS, made)
    assert (blue.lists, blue.failed, blue.excess_failed) == (200, 0.125, None)
    assert blue.p99_s == pytest.approx(0.198)
    assert (other.lists, other.p99_s, other.excess_slow) == (200, None, None)


def test_too_few_users_stop_no_arm():
    """An arm with fewer than 100 users has no interval, even if all of its answers failed."""
    made = [shown(f"b{number}", "blue") for number in range(500)]
    made += [shown(f"r{number}", "red", took_s=5.0, failed=True) for number in range(99)]
    assert reasons(check_health(COLOURS, made)) == {}
    made.append(shown("r99", "red", took_s=5.0, failed=True))
    assert reasons(check_health(COLOURS, made)) == {
        "red": "100.00% of its lists failed, 0.00% of blue; its p99 is 5000 ms, that of blue 20 ms"
    }


def test_without_lists_there_is_nothing_to_stop():
    """An experiment that has just started has no figures and no reasons."""
    found = check_health(COLOURS, [])
    assert [(each.lists, each.failed, each.p99_s) for each in found] == [(0, 0.0, None)] * 2
    assert reasons(found) == {}
