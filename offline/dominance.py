"""
Find users who hold so much of the data that a model would follow them.

A program that clicks on everything, or an account that many people share, can hold more than all others together. Its
pairs push other items out of recent popularity, and its weights bend the factors of every item that it touched.
"""

from collections.abc import Sequence

import numpy as np

from recsys.records import UserRecord
from topk.item_table import F64

MOST_OF_ONE_USER = 0.1
"""Largest share of all pairs of user and item, or of their weights, that one user may have."""


def largest_share(records: Sequence[UserRecord]) -> float:
    """Return the largest share of all pairs, or of their weights, that one user of *records* has; 0 without pairs."""
    return float(_shares(records).max(initial=0.0))


def without_dominant(records: Sequence[UserRecord]) -> tuple[list[UserRecord], list[UserRecord]]:
    """
    Divide *records* into those to learn from, and those of users with too large a share.

    Without the largest user, the next one may have too large a share of the rest. That user is left out too.
    """
    kept, dominant = list(records), list[UserRecord]()
    while (shares := _shares(kept)).max(initial=0.0) > MOST_OF_ONE_USER:
        dominant.append(kept.pop(int(shares.argmax())))
    return kept, dominant


def _shares(records: Sequence[UserRecord]) -> F64:
    """Return the share of each user, (U,): that of the pairs, or that of the weights if it is larger."""
    held = np.array(
        [(len(each.history), sum(item.weight for item in each.history)) for each in records], np.float64
    ).reshape(-1, 2)
    return np.asarray((held / np.maximum(held.sum(axis=0), 1e-9)).max(axis=1, initial=0.0))
