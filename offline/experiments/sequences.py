"""
Confidence sequences: intervals that cover the truth at all looks together, so that anyone may look at any time.

The difference of two means, d, with standard error e, behaves like a Brownian motion in the time v = 1 / e^2. Robbins'
mixture of its martingales by a normal density gives, for the effective number of users n and a fixed r > 0,

    |d - truth| < e sqrt(2 (n r + 1) / (n r) log(sqrt(n r + 1) / alpha))        at all n with probability 1 - alpha

where 1 / n = 1 / n_arm + 1 / n_control. The interval is narrowest, compared with that of a single look, where
n r = -2 log alpha + log(1 - 2 log alpha). The plan of the experiment fixes that n in advance.

The same bound for arm - (1 + change) control gives the interval of the relative change: the values that it does not exclude
(Fieller 1954, "Some problems in interval estimation"). Dividing the interval of the difference by the mean of the control
would ignore the error of that mean.

The bound is asymptotic: the normal approximation must hold from the first look on. An arm with fewer than `LEAST_USERS`
users has no interval.

Source: Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas 2024, "Time-uniform central limit theory and asymptotic confidence
sequences" (the normal mixture); Robbins 1970, "Statistical methods related to the law of the iterated logarithm".
"""

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from topk.item_table import F64

LEAST_USERS = 100
ALPHA = 0.05

Number = TypeVar("Number", float, F64)


@dataclass(frozen=True)
class Sample:
    """
    The users of an arm.

    Attributes:
        users: Number of users.
        mean: Mean of their values.
        variance: Variance of their values.
    """

    users: int
    mean: float
    variance: float

    @classmethod
    def of(cls, values: F64) -> "Sample":
        """Return the sample of *values*, one of each user."""
        if values.size < 2:
            return cls(int(values.size), float(values.mean()) if values.size else math.nan, math.nan)
        return cls(int(values.size), float(values.mean()), float(values.var(ddof=1)))


@dataclass(frozen=True)
class MeanDifference:
    """The difference of two means, absolute or relative, and the ends of its interval."""

    value: float
    low: float
    high: float


def stretch(effective: Number, *, planned: float, alpha: float = ALPHA) -> Number:
    """
    Return how many standard errors the interval reaches at the *effective* number of users.

    Args:
        effective: Effective number of users; an array gives an array.
        planned: Effective number of users at which the interval is to be narrowest.
        alpha: Probability that the interval misses the truth at any look.
    """
    scaled = np.asarray(effective) * (tuning(alpha) / planned)
    found = np.sqrt(2 * (scaled + 1) / scaled * np.log(np.sqrt(scaled + 1) / alpha))
    return found if isinstance(effective, np.ndarray) else float(found)


def tuning(alpha: float) -> float:
    """Return n r at the planned number of users."""
    return -2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha))


def effective_users(one: Number, other: Number) -> Number:
    """Return the effective number of users of two arms."""
    return one * other / (one + other)


def compare(arm: Sample, control: Sample, *, planned: float, alpha: float = ALPHA) -> MeanDifference | None:
    """
    Return how far the mean of *arm* is above that of *control*; None with fewer than `LEAST_USERS` users in one.

    Args:
        arm: The arm.
        control: The control.
        planned: Effective number of users at the end of the plan.
        alpha: Probability that the interval misses the truth at any look.
    """
    if min(arm.users, control.users) < LEAST_USERS:
        return None
    value = arm.mean - control.mean
    error = math.sqrt(arm.variance / arm.users + control.variance / control.users)
    half = error * _reach(arm, control, planned=planned, alpha=alpha)
    return MeanDifference(value, value - half, value + half)


def compare_relative(arm: Sample, control: Sample, *, planned: float, alpha: float = ALPHA) -> MeanDifference | None:
    """
    Return the change of the mean of *arm* as a share of that of *control*. The arguments are those of `compare`.

    Its interval and that of the difference are on the same side of 0. None with fewer than `LEAST_USERS` users in one, and
    if the mean of *control* may be 0.
    """
    if min(arm.users, control.users) < LEAST_USERS:
        return None
    reach = _reach(arm, control, planned=planned, alpha=alpha)
    # Ratios q with (arm - q control)^2 <= reach^2 (variance of arm + q^2 variance of control): a quadratic inequality.
    square = control.mean**2 - reach**2 * control.variance / control.users
    if control.mean <= 0 or square <= 0:
        return None
    middle = arm.mean * control.mean / square
    half = math.sqrt(max(0.0, middle**2 - (arm.mean**2 - reach**2 * arm.variance / arm.users) / square))
    return MeanDifference(arm.mean / control.mean - 1, middle - half - 1, middle + half - 1)


def _reach(arm: Sample, control: Sample, *, planned: float, alpha: float) -> float:
    return stretch(effective_users(float(arm.users), float(control.users)), planned=planned, alpha=alpha)
