"""
The prior: the user vector that the features predict. The fold-in starts from it.

    m = base + encoding W

The encoding of the age group is one-hot, and all zeros for an unknown age. A numeric feature lies between two of its
knots and is encoded as weights on these two, so W can follow any curve. W was fitted to the vectors of training users
(offline/prior.py).
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recsys.contracts.wire import Features
from recsys.features import AGE_GROUPS, UNKNOWN_AGE
from topk.item_table import F32, F64

KNOWN_AGES = tuple(group for group in AGE_GROUPS if group != UNKNOWN_AGE)

_AGE_COLUMN = {group: column for column, group in enumerate(KNOWN_AGES)}


@dataclass(frozen=True, slots=True)
class FeaturePrior:
    """
    A fitted prior.

    Attributes:
        knots: Increasing values of log session seconds, log purchases and engagement.
        weights: (F, D) float32, W; F is the number of ages and knots.
        base: (D,) float32, the prior for an encoding of zeros.
    """

    knots: tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]
    weights: F32
    base: F32

    def means(self, features: Sequence[Features]) -> F64:
        """Return the prior m of each user, (U, D). The bits of a row depend only on that user's features."""
        entries = [_entries(each, self.knots) for each in features]
        columns = np.array([[column for column, _ in each] for each in entries])
        shares = np.array([[share for _, share in each] for each in entries])
        return np.asarray(self.base + (self.weights[columns] * shares[:, :, None]).sum(axis=1))


def numbers(features: Features) -> tuple[float, float, float]:
    """Return the three numeric features in the units of their knots."""
    return (
        math.log1p(features.avg_session_duration),
        math.log1p(features.total_purchases),
        features.engagement_score,
    )


def encode(features: Features, knots: Sequence[Sequence[float]]) -> F64:
    """Return a user's encoding, (F,): ages first, then the knots of each number."""
    encoded = np.zeros(len(KNOWN_AGES) + sum(map(len, knots)))
    for column, share in _entries(features, knots):
        encoded[column] += share
    return encoded


def _entries(features: Features, knots: Sequence[Sequence[float]]) -> list[tuple[int, float]]:
    """Return the columns of a user's encoding and their values: one for the age, two for each number."""
    age = _AGE_COLUMN.get(features.age_group)
    entries = [(0, 0.0) if age is None else (age, 1.0)]
    column = len(KNOWN_AGES)
    for value, places in zip(numbers(features), knots, strict=True):
        upper = min(max(bisect_right(places, value), 1), len(places) - 1)
        lower = max(upper - 1, 0)
        share = (value - places[lower]) / (places[upper] - places[lower]) if places[upper] > places[lower] else 0.0
        share = min(max(share, 0.0), 1.0)
        entries += (column + lower, 1.0 - share), (column + upper, share)
        column += len(places)
    return entries
