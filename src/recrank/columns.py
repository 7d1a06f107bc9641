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
from recrank.request_rows import Ask
from topk.item_table import F32, F64, I64
from topk.row_lists import RowLists

FIXED = ("factors", "popularity", "recent_popularity")
LENGTH = "history_length"


@cache
def built_in(views: int) -> tuple[str, ...]:
    """Return the names of the columns of a model with this number of neighbour sources; those of the blend are first."""
    return ("blend", *FIXED, *(f"neighbours_{number}" for number in range(1, views + 1)), LENGTH)


def make_columns(
    names: Sequence[str], shortlist: Shortlist, asks: Sequence[Ask], history: RowLists, features: DeclaredFeatures
) -> F32:
    """
    Return the columns *names* of a shortlist, (N, F).

    Args:
        names: The columns.
        shortlist: The candidates.
        asks: The requests that they are of; each has an asker.
        history: Rows of each request's history.
        features: The declared features.
    """
    batch = Batch(shortlist.rows, shortlist.owners(), [ask.asker for ask in asks if ask.asker is not None], history)
    known = built_in(len(shortlist.columns) - len(FIXED))
    columns: dict[str, F32 | F64 | I64] = dict(zip(known, (shortlist.scores, *shortlist.columns), strict=False))
    if LENGTH in names:
        columns[LENGTH] = history.sizes().repeat(shortlist.counts)
    columns |= features.compute([name for name in names if name not in known], batch)
    matrix = np.empty((shortlist.rows.size, len(names)), np.float32)
    for place, name in enumerate(names):
        matrix[:, place] = columns[name]
    return matrix
