"""
Guardrails of an experiment on the answers of its arms: the share that failed, and the slowest of them.

A list failed if a hop or the arm failed, so that the answer is degraded or the default's. A list is slow if it took longer
than `SLOWER` times the 99th percentile of the control. Each user is one observation: the share of the user's lists that
failed, or that were slow. An arm is stopped only if its interval, which holds at all looks together, excludes that it is
as good as the control:

    failing    the share of failed lists is above that of the control
    slow       more than 1 % of its lists are slow, so its own 99th percentile is above that limit

Users count from their first list on. Waiting for a whole day, as the analysis of actions does, would leave a broken arm
running.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offline.experiments.analysis import arm_in
from offline.experiments.sequences import ALPHA, MeanDifference, Sample, compare, effective_users
from recstore.exposures.records import ExposureOutcome
from recsys.experiments.declaration import Experiment
from topk.item_table import F64, I64

SLOWEST = 0.01
SLOWER = 1.25
# A difference that no caller notices does not stop an arm.
LEAST_S = 0.01


@dataclass(frozen=True)
class ArmHealth:
    """
    The answers of an arm.

    Attributes:
        name: The arm.
        lists: Number of lists.
        failed: Share of the lists that failed.
        p99_s: 99th percentile of the time that a list took, seconds; None if no event tells the time.
        excess_failed: Share of failed lists above that of the control; None for the control and with too few users.
        excess_slow: Share of slow lists above `SLOWEST`; None for the control and with too few users.
    """

    name: str
    lists: int
    failed: float
    p99_s: float | None
    excess_failed: MeanDifference | None = None
    excess_slow: MeanDifference | None = None

    @property
    def is_failing(self) -> bool:
        """Whether the arm fails more often than the control."""
        return self.excess_failed is not None and self.excess_failed.low > 0

    @property
    def is_slow(self) -> bool:
        """Whether the 99th percentile of the arm is above the limit."""
        return self.excess_slow is not None and self.excess_slow.low > 0


@dataclass(frozen=True)
class _Lists:
    """The lists of an arm: their user, whether they failed, and the seconds that they took (NaN if unknown)."""

    users: I64
    failed: NDArray[Any]
    seconds: F64

    @property
    def p99_s(self) -> float | None:
        """The 99th percentile, a time that a list really took."""
        known = self.seconds[np.isfinite(self.seconds)]
        return float(np.quantile(known, 1 - SLOWEST, method="higher")) if known.size else None

    def failures(self) -> Sample:
        """Return the share of failed lists of each user."""
        return _by_user(self.users, self.failed)

    def slowness(self, limit_s: float) -> Sample:
        """Return the share of lists slower than *limit_s* of each user."""
        known = np.isfinite(self.seconds)
        return _by_user(self.users[known], self.seconds[known] > limit_s)


def check_health(
    experiment: Experiment, exposures: Sequence[ExposureOutcome], *, alpha: float = ALPHA
) -> list[ArmHealth]:
    """
    Return the health of each arm, the control first.

    Args:
        experiment: Its declaration.
        exposures: The log; lists before the start of the experiment do not count.
        alpha: Probability that any of the intervals of one guardrail misses the truth at any look.
    """
    control, *others = (_gather(experiment, arm.name, exposures) for arm in experiment.arms)
    planned = [
        effective_users(experiment.users * experiment.arms[0].share, experiment.users * arm.share)
        for arm in experiment.arms
    ]
    limit_s = None if control.p99_s is None else max(control.p99_s * SLOWER, control.p99_s + LEAST_S)
    healths = [_health(experiment.arms[0].name, control)]
    for arm, lists, users in zip(experiment.arms[1:], others, planned[1:], strict=True):
        healths.append(
            _health(
                arm.name,
                lists,
                compare(lists.failures(), control.failures(), planned=users, alpha=alpha / len(others)),
                _excess(lists, control, limit_s, planned=users, alpha=alpha / len(others)),
            )
        )
    return healths


def _health(
    name: str, lists: _Lists, excess_failed: MeanDifference | None = None, excess_slow: MeanDifference | None = None
) -> ArmHealth:
    failed = float(lists.failed.mean()) if lists.failed.size else 0.0
    return ArmHealth(name, int(lists.users.size), failed, lists.p99_s, excess_failed, excess_slow)


def _excess(
    lists: _Lists, control: _Lists, limit_s: float | None, *, planned: float, alpha: float
) -> MeanDifference | None:
    """Return how far the share of slow lists is above `SLOWEST`. The error of the control's percentile counts as well."""
    if limit_s is None:
        return None
    usual = control.slowness(limit_s)
    found = compare(lists.slowness(limit_s), usual, planned=planned, alpha=alpha)
    if found is None:
        return None
    shift = usual.mean - SLOWEST
    return MeanDifference(found.value + shift, found.low + shift, found.high + shift)


def _gather(experiment: Experiment, arm: str, exposures: Sequence[ExposureOutcome]) -> _Lists:
    own = [each for each in exposures if each.time_us >= experiment.started_us and arm_in(each, experiment.name) == arm]
    numbers = {user: number for number, user in enumerate(dict.fromkeys(each.user_id for each in own))}
    return _Lists(
        np.array([numbers[each.user_id] for each in own], np.int64),
        np.array([each.failed for each in own], np.bool_),
        np.array([np.nan if each.took_us is None else each.took_us / 1e6 for each in own], np.float64),
    )


def _by_user(users: I64, values: NDArray[Any]) -> Sample:
    """Return the sample of the mean of *values* of each user."""
    counts = np.bincount(users)
    sums = np.bincount(users, weights=values)
    return Sample.of(sums[counts > 0] / counts[counts > 0])


def reasons(healths: Sequence[ArmHealth]) -> dict[str, str]:
    """Return why arms must stop, by arm: only those that fail more often or are slower than the control."""
    control = healths[0]
    found: dict[str, str] = {}
    for each in healths[1:]:
        told = [f"{each.failed:.2%} of its lists failed, {control.failed:.2%} of {control.name}"] * each.is_failing
        if each.is_slow and each.p99_s is not None and control.p99_s is not None:
            told.append(f"its p99 is {each.p99_s * 1000:.0f} ms, that of {control.name} {control.p99_s * 1000:.0f} ms")
        if told:
            found[each.name] = "; ".join(told)
    return found
