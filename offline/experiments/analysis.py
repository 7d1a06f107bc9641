"""
The analysis of an experiment from the exposure log.

A user's value is the number of actions per list, over the lists that the user got within the time *followed* after the
first list of the experiment. A user counts when that time is over. Each user is therefore one observation, even if the
user returns, and the intervals hold at every look. Users stay in the arm that they were assigned to, even if
the default answered for the arm.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from offline.experiments.checks import MISMATCH, adjust, check_ratio
from offline.experiments.sequences import ALPHA, MeanDifference, Sample, compare, compare_relative, effective_users
from recstore.exposures.records import ExposureOutcome
from recsys.experiments.assignment import SEPARATOR
from recsys.experiments.declaration import Experiment

DAY_US = 86_400_000_000


@dataclass(frozen=True)
class UserValue:
    """
    A user of an experiment.

    Attributes:
        arm: The arm of the first list.
        first_us: Time of the first list of the experiment, microseconds since the epoch.
        value: Actions per list.
        before: Actions per list before the first list of the experiment; NaN without such a list.
        switched: Whether a later list names another arm.
    """

    arm: str
    first_us: int
    value: float
    before: float
    switched: bool


@dataclass(frozen=True)
class ArmResult:
    """
    The users of an arm, compared with the control.

    Attributes:
        name: The arm.
        sample: The users, after the adjustment by their history.
        lift: Difference from the mean of the control, at all looks; None for the control and with too few users.
        change: The same as a share of the mean of the control; None also if that mean may be 0.
    """

    name: str
    sample: Sample
    lift: MeanDifference | None
    change: MeanDifference | None = None

    @property
    def is_worse(self) -> bool:
        """Whether the interval lies below 0."""
        return self.lift is not None and self.lift.high < 0

    @property
    def is_better(self) -> bool:
        """Whether the interval lies above 0."""
        return self.lift is not None and self.lift.low > 0


@dataclass(frozen=True)
class Analysis:
    """
    An experiment so far.

    Attributes:
        experiment: Its name.
        arms: The arms, the control first.
        mismatch: Bound on the probability of these numbers of users if the arms had their shares.
        switched: Number of users with lists of two arms; 0 unless the declaration or the log is damaged.
        waiting: Number of users whose time is not over.
        adjusted: Number of users with a history before the experiment.
    """

    experiment: str
    arms: list[ArmResult]
    mismatch: float
    switched: int
    waiting: int
    adjusted: int

    @property
    def is_sound(self) -> bool:
        """Whether users are in the arms as declared; if not, no difference of the arms means anything."""
        return self.mismatch >= MISMATCH and not self.switched


def analyse(
    experiment: Experiment,
    exposures: Iterable[ExposureOutcome],
    *,
    kinds: frozenset[str],
    followed_us: int = DAY_US,
    alpha: float = ALPHA,
) -> Analysis:
    """
    Analyse *experiment*.

    Args:
        experiment: Its declaration.
        exposures: The log, the lists of a user together and oldest first.
        kinds: The actions that count. An item counts once for each list.
        followed_us: Time after a user's first list.
        alpha: Probability that any of the intervals misses the truth at any look.
    """
    users, newest_us = gather_users(
        experiment.name, exposures, kinds=kinds, followed_us=followed_us, since_us=experiment.started_us
    )
    return conclude(experiment, users, until_us=newest_us - followed_us, alpha=alpha)


def measure_users(exposures: Iterable[ExposureOutcome], *, kinds: frozenset[str], followed_us: int = DAY_US) -> Sample:
    """Return the users of the log, in and out of experiments, with the values that an experiment would give them."""
    users, newest_us = gather_users(None, exposures, kinds=kinds, followed_us=followed_us)
    return Sample.of(np.array([each.value for each in users if each.first_us + followed_us <= newest_us]))


def gather_users(
    name: str | None,
    exposures: Iterable[ExposureOutcome],
    *,
    kinds: frozenset[str],
    followed_us: int,
    since_us: int = 0,
) -> tuple[list[UserValue], int]:
    """Return the users of the experiment *name* (`value_of`), and the time of the newest list of all users."""
    users: list[UserValue] = []
    newest_us = 0
    for _, own in groupby(exposures, key=lambda each: each.user_id):
        lists = list(own)
        newest_us = max(newest_us, lists[-1].time_us)
        value = value_of(name, lists, kinds=kinds, followed_us=followed_us, since_us=since_us)
        users += [value] if value is not None else []
    return users, newest_us


def conclude(
    experiment: Experiment, users: Sequence[UserValue], *, until_us: float = math.inf, alpha: float = ALPHA
) -> Analysis:
    """
    Analyse *experiment* from the values of its users.

    Args:
        experiment: Its declaration.
        users: The users.
        until_us: The time of users whose first list came later is not over.
        alpha: Probability that any of the intervals misses the truth at any look.
    """
    names = [arm.name for arm in experiment.arms]
    ended = [each for each in users if each.first_us <= until_us and each.arm in names]
    values, before = np.array([each.value for each in ended]), np.array([each.before for each in ended])
    values = adjust(values, before) if ended else values
    arms = np.array([each.arm for each in ended])
    samples = [Sample.of(values[arms == name]) if ended else Sample(0, math.nan, math.nan) for name in names]
    counts = Counter(each.arm for each in users)
    return Analysis(
        experiment.name,
        list(_compare(experiment, samples, alpha=alpha)),
        check_ratio([counts[name] for name in names], [arm.share for arm in experiment.arms]),
        sum(each.switched for each in users),
        sum(each.first_us > until_us for each in users),
        int(np.isfinite(before).sum()) if ended else 0,
    )


def _compare(experiment: Experiment, samples: Sequence[Sample], *, alpha: float) -> Iterator[ArmResult]:
    control, *others = experiment.arms
    yield ArmResult(control.name, samples[0], None)
    for arm, sample in zip(others, samples[1:], strict=True):
        planned = effective_users(experiment.users * control.share, experiment.users * arm.share)
        lift, change = (
            between(sample, samples[0], planned=planned, alpha=alpha / len(others))
            for between in (compare, compare_relative)
        )
        yield ArmResult(arm.name, sample, lift, change)


def value_of(
    name: str | None, lists: Sequence[ExposureOutcome], *, kinds: frozenset[str], followed_us: int, since_us: int = 0
) -> UserValue | None:
    """
    Return the value of a user with *lists*, oldest first; None if none belongs to the experiment *name*.

    Without a *name*, all lists count, and the arm is "".
    Lists before *since_us* are history, even if they name an experiment of this name.
    """
    arms = [arm_in(each, name) if each.time_us >= since_us else None for each in lists]
    start = next((place for place, arm in enumerate(arms) if arm is not None), None)
    if start is None:
        return None
    first_us = lists[start].time_us
    counted = [
        _actions(each, kinds)
        for each, arm in zip(lists, arms, strict=True)
        if arm is not None and each.time_us < first_us + followed_us
    ]
    earlier = [_actions(each, kinds) for each in lists[:start]]
    return UserValue(
        arms[start] or "",
        first_us,
        sum(counted) / len(counted),
        sum(earlier) / len(earlier) if earlier else math.nan,
        len({*arms} - {None}) > 1,
    )


def arm_in(exposure: ExposureOutcome, name: str | None) -> str | None:
    """Return the arm of the experiment *name*; None if the list does not belong to the experiment; "" without a *name*."""
    if name is None:
        return ""
    names, arms = (exposure.experiment or "").split(SEPARATOR), (exposure.arm or "").split(SEPARATOR)
    return dict(zip(names, arms, strict=False)).get(name)


def _actions(exposure: ExposureOutcome, kinds: frozenset[str]) -> int:
    return sum(bool(kinds & {*item.outcomes}) for item in exposure.items)
