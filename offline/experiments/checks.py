"""
Two checks of an experiment: whether the arms have the users that they should, and whether history explains the values.

Sample ratio: the multinomial counts have a Bayes factor against a Dirichlet alternative around the declared shares. Its
inverse bounds the probability of a false alarm at all looks together (Lindon & Malek 2022, "Anytime-valid inference for
multinomial count data").

CUPED: a value of the time before the experiment, such as the actions per list, explains a part of the differences between
users. Subtracting this part narrows the intervals and moves no mean, because arms are chosen independently of the past
(Deng, Xu, Kohavi & Walker 2013, "Improving the sensitivity of online controlled experiments by utilizing
pre-experiment data").
"""

import math
from collections.abc import Sequence

import numpy as np

from topk.item_table import F64

MISMATCH = 0.001
# The alternative is about as concentrated as this many users.
_CONCENTRATION = 1000.0


def check_ratio(counts: Sequence[int], shares: Sequence[float]) -> float:
    """
    Return a bound on the probability of counts as far from *shares*, at any look; below `MISMATCH`, the arms are wrong.

    Args:
        counts: Users of each arm.
        shares: Declared shares; they add up to 1.
    """
    prior = [_CONCENTRATION * share for share in shares]
    total = sum(counts)
    log_factor = math.lgamma(_CONCENTRATION) - math.lgamma(_CONCENTRATION + total)
    for count, share, weight in zip(counts, shares, prior, strict=True):
        log_factor += math.lgamma(weight + count) - math.lgamma(weight) - count * math.log(share)
    return min(1.0, math.exp(-min(log_factor, 700.0)) if log_factor > 0 else 1.0)


def adjust(values: F64, before: F64) -> F64:
    """
    Return *values* without what *before* explains.

    Args:
        values: (U,) value of each user of all arms.
        before: (U,) value of the user before the experiment; NaN for users without one, whose values stay.
    """
    known = np.isfinite(before)
    if known.sum() < 2 or float(np.var(before[known])) == 0:
        return values
    covariance = np.cov(values[known], before[known])
    slope = covariance[0, 1] / covariance[1, 1]
    excess = np.where(known, before - before[known].mean(), 0.0)
    return np.asarray(values - slope * excess, np.float64)
