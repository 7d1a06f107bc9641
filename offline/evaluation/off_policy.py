"""
Estimate from logged lists how many actions a list of another model would get.

An item counts in proportion to its weight, 1 / propensity if the candidate shows the same item at the same position,
else 0. With actions r, weights w and exposures e, positions k:

    IPS     mean over e of  sum_k w r                       unbiased if the candidate's items had a chance
    SNIPS   sum over k of  sum_e w r / sum_e w              less variance, a bias that vanishes with more exposures
    DR      mean over e of  sum_k  m(candidate) + w (r - m(shown))

m is a model of the actions: rate of the position times the ratio of the item. Each half of the users gets the model of
the other half. DR is unbiased like IPS, and varies less the better m is.

All three assume that the actions on an item depend on the user, the item and its position, and not on the other items
of the list. The exposures of one user depend on each other, so the intervals treat a user as one observation.

Sources: Swaminathan & Joachims 2015 (SNIPS); Dudik, Langford & Li 2011 (doubly robust); Li et al. 2018, "Offline
evaluation of ranking policies with click models" (the weights by item and position).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from topk.item_table import F64, I64

Bools = NDArray[np.bool_]
LEVEL = 0.95
# The ratio of an item moves halfway from 1 to its own value after this many expected actions.
_PRIOR_ACTIONS = 1.0


@dataclass(frozen=True)
class ShownLists:
    """
    E logged lists of at most K items.

    Attributes:
        users: (E,) int64, number of the user, from 0.
        items: (E, K) int64, numbers of the items; -1 beyond the end of a list.
        propensities: (E, K) float64, above 0.
        rewards: (E, K) float64, 0 beyond the end of a list.
    """

    users: I64
    items: I64
    propensities: F64
    rewards: F64

    @property
    def is_shown(self) -> Bools:
        """Whether a list has an item at each position, (E, K)."""
        return self.items >= 0


@dataclass(frozen=True)
class ValueInterval:
    """A value and the ends of its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """
    An estimate of the actions per list.

    Attributes:
        name: `logged` for the lists that were shown, else the estimator.
        value: Actions per list.
        lift: Difference from the lists that were shown.
    """

    name: str
    value: ValueInterval
    lift: ValueInterval


@dataclass(frozen=True)
class OffPolicy:
    """
    The judgement of a log on a candidate.

    Attributes:
        estimates: The lists that were shown, and each estimator.
        support: Mean weight, 1 in expectation if each item of the candidate had a chance. Far below 1, the log cannot
            judge the candidate.
        effective: Number of items that would vary as little without weights.
    """

    estimates: list[Estimate]
    support: float
    effective: float


def evaluate_lists(shown: ShownLists, candidate: I64) -> OffPolicy:
    """
    Estimate the actions per list of a candidate.

    Args:
        shown: The log.
        candidate: (E, K) int64, the items that the candidate shows for the same exposures; -1 for none.

    Raises:
        ValueError: the log has fewer than two users.
    """
    if np.unique(shown.users).size < 2:
        raise ValueError("an estimate needs the lists of at least two users")
    weights = np.where(shown.is_shown & (candidate == shown.items), 1.0 / shown.propensities, 0.0)
    logged = shown.rewards.sum(axis=1)
    values = {
        "logged": logged,
        "ips": (weights * shown.rewards).sum(axis=1),
        "snips": _normalised(shown, weights),
        "dr": _doubly_robust(shown, weights, candidate),
    }
    return OffPolicy(
        [
            Estimate(name, mean_interval(each, shown.users), mean_interval(each - logged, shown.users))
            for name, each in values.items()
        ],
        support=float(weights.sum() / shown.is_shown.sum()),
        effective=float(weights.sum() ** 2 / max(float((weights**2).sum()), 1e-300)),
    )


def mean_interval(values: F64, users: I64) -> ValueInterval:
    """Return the mean of *values* (E,) with its interval; the values of one of *users* (E,) may depend on each other."""
    counts = np.bincount(users).astype(np.float64)
    mean = float(values.mean())
    off = (np.bincount(users, values) - mean * counts)[counts > 0]
    variance = float((off**2).sum()) / values.size**2 * off.size / (off.size - 1)
    half = NormalDist().inv_cdf((1 + LEVEL) / 2) * variance**0.5
    return ValueInterval(mean, mean - half, mean + half)


def _normalised(shown: ShownLists, weights: F64) -> F64:
    """Return values (E,) with the mean of SNIPS, whose spread is that of SNIPS to the first order."""
    counts = shown.is_shown.sum(axis=0)
    total = weights.sum(axis=0)
    rates = (weights * shown.rewards).sum(axis=0) / np.maximum(total, 1e-300)
    scale = counts / np.maximum(total, 1e-300)
    return np.asarray((shown.is_shown * (rates + scale * weights * (shown.rewards - rates))).sum(axis=1), np.float64)


def _doubly_robust(shown: ShownLists, weights: F64, candidate: I64) -> F64:
    values = np.zeros(len(shown.users))
    items = int(max(shown.items.max(), candidate.max())) + 1
    for fold, rates, ratios in _models(shown, items):
        own, other = shown.items[fold], candidate[fold]
        expected = np.where(other >= 0, rates * ratios[other], 0.0)
        error = shown.rewards[fold] - np.where(own >= 0, rates * ratios[own], 0.0)
        values[fold] = (expected + weights[fold] * error).sum(axis=1)
    return values


def _models(shown: ShownLists, items: int) -> Iterator[tuple[Bools, F64, F64]]:
    """Yield each half of the users, and the rate of each position and the ratio of each item in the other half."""
    for half in (0, 1):
        fold = shown.users % 2 == half
        seen, rewards = shown.is_shown[~fold], shown.rewards[~fold]
        rates = rewards.sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
        numbers = shown.items[~fold][seen]
        actions = np.bincount(numbers, rewards[seen], items)
        expected = np.bincount(numbers, np.broadcast_to(rates, seen.shape)[seen], items)
        yield fold, rates, (actions + _PRIOR_ACTIONS) / (expected + _PRIOR_ACTIONS)
