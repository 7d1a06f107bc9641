"""The number of users that an experiment needs."""

import math
from collections.abc import Sequence
from statistics import NormalDist

from offline.experiments.sequences import ALPHA, LEAST_USERS, effective_users, stretch

POWER = 0.8
# Mean and deviation are estimates, and a change may be a little smaller than the one that was planned for.
_PLANNED_POWER = 0.85


def plan_users(
    mean: float,
    deviation: float,
    *,
    lift: float,
    shares: Sequence[float] = (0.5, 0.5),
) -> int:
    """
    Return the users of all arms together that show a *lift* with a probability of at least `POWER`.

    The plan aims at 0.85, so that a mean or a lift that is 4 % smaller leaves 0.8.

    The interval of each arm then lies above 0 at this number of users or before.

    Args:
        mean: Mean value of a user of the control.
        deviation: Standard deviation of the values of users.
        lift: Relative change of the mean, such as 0.1.
        shares: Shares of the arms, the control first.
    """
    # At the planned number of users, the interval reaches this many standard errors.
    reach = stretch(1.0, planned=1.0, alpha=ALPHA / (len(shares) - 1)) + NormalDist().inv_cdf(_PLANNED_POWER)
    needed = (reach * deviation / (mean * lift)) ** 2
    smallest = min(shares[1:])
    users = needed / effective_users(shares[0], smallest)
    return max(math.ceil(users), math.ceil(LEAST_USERS / min(shares)))
