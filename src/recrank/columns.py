"""
The columns that a ranker can ask for: those of the blend, and the declared features (`recrank.features`).

    blend               score of the blend
    factors             score of the factors, as a share of the user's best; the same for the next four
    popularity          users per item, as a share of the most popular item's
    recent_popularity   the same, of recent interactions
    neighbours_1, ...   score of each neighbour source
    history_length      number of items in the user's history that the model knows
"""

from collections.abc import Sequence
from functools import cache

import numpy as np

from recrank.features import Batch, DeclaredFeatures
from recrank.ranker import Shortlist
from topk.item_table import F32, F64, I64

FIXED = ("factors", "popularity", "recent_popularity")
LENGTH = "history_length"


@cache
def built_in(views: int) -> tuple[str, ...]:
    """Return the names of the columns of a model with this number of neighbour sources; those of the blend are first."""
    return ("blend", *FIXED, *(f"neighbours_{number}" for number in range(1, views + 1)), LENGTH)


def make_matrix(names: Sequence[str], shortlist: Shortlist, batch: Batch, features: DeclaredFeatures) -> F32:
    """
    Return the features (N, F) of a shortlist, in the order of *names*.

    Args:
        names: The columns.
        shortlist: The candidates.
        batch: The same candidates with their requests.
        features: The declared features.
    """
    known = built_in(len(shortlist.columns) - len(FIXED))
    columns: dict[str, F32 | F64 | I64] = dict(zip(known, (shortlist.scores, *shortlist.columns), strict=False))
    if LENGTH in names:
        columns[LENGTH] = batch.history.sizes().repeat(shortlist.counts)
    columns |= features.compute([name for name in names if name not in known], batch)
    matrix = np.empty((shortlist.rows.size, len(names)), np.float32)
    for place, name in enumerate(names):
        matrix[:, place] = columns[name]
    return matrix
