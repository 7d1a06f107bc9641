"""User features as a vector, the same for training and for serving."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.contracts.wire import Features
from recsys.features import AGE_GROUPS, UNKNOWN_AGE

ENCODED_WIDTH = len(AGE_GROUPS) + 4

_AGE_COLUMN = {group: column for column, group in enumerate(AGE_GROUPS)}


def encode_features(features: Sequence[Features]) -> NDArray[np.float32]:
    """
    Return one row per user: the age group one-hot, then session minutes and purchases (log1p), engagement, and 1.

    Returns:
        (U, ENCODED_WIDTH) float32.
    """
    encoded = np.zeros((len(features), ENCODED_WIDTH), np.float32)
    for row, each in zip(encoded, features, strict=True):
        row[_AGE_COLUMN.get(each.age_group, _AGE_COLUMN[UNKNOWN_AGE])] = 1.0
        row[-4:] = (
            math.log1p(each.avg_session_duration / 60),
            math.log1p(each.total_purchases),
            each.engagement_score,
            1.0,
        )
    return encoded
