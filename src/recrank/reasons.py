"""
Tell why an item is in a list: the source that contributes most to its score, and the item of the history behind it.

Neighbours: the item of the history that votes most for it. Factors: the score is a sum over the history,

    score_i = y_i' start + sum over history h of  s_ih e_h,   s_ih = c_h y_i' A^-1 y_h,   A = P + Y'CY

and the item with the largest term counts (Hu, Koren & Volinsky 2008, section 5; e_h is the deviation from the start).
Popularity has no item.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recrank.fold_in import FoldIn
from topk.item_table import F64, I64

FACTORS, POPULARITY, NEIGHBOURS, RULES = "factors", "popularity", "neighbours", "rules"


@dataclass(frozen=True, slots=True)
class Because:
    """
    The reason for an item.

    Attributes:
        source: `factors`, `popularity`, `neighbours`, or `rules` for an item that a rule put there.
        item_id: The item of the history; None without one.
    """

    source: str
    item_id: str | None = None


def name_sources(views: int) -> list[str]:
    """Return the name of each source of a blend, in the order of its weights; recent popularity is popularity, too."""
    return [FACTORS, POPULARITY, POPULARITY, *[NEIGHBOURS] * views]


def speak_by_factors(fold_in: FoldIn, history: I64, rows: I64, prior: F64) -> F64:
    """
    Return the term of each item of *history* (H,) in the scores of *rows* (R,), (H, R).

    Args:
        fold_in: The fold-in of the model.
        history: Rows of the history, newest first.
        rows: Rows of the list.
        prior: (D,), the prior of the user.
    """
    weights = np.ones(history.size)
    if fold_in.half_life:
        weights = np.exp2(np.arange(history.size) / -fold_in.half_life)
    voters = fold_in.items[history].astype(np.float64)
    error = 1.0 - voters @ (fold_in.fade(history.size) * prior)
    system = np.diag(fold_in.diagonal.astype(np.float64)) + (voters.T * weights) @ voters
    solved = np.linalg.solve(system, fold_in.items[rows].astype(np.float64).T)
    return np.asarray((weights * error)[:, None] * (voters @ solved), np.float64)


def explain(sources: Sequence[str], spoken: Mapping[str, F64], history: Sequence[str]) -> list[Because]:
    """
    Return a reason for each item of a list.

    Args:
        sources: The source of each item (R).
        spoken: The terms of the history (H, R) by source.
        history: Ids of the history, newest first.
    """
    reasons = []
    for place, source in enumerate(sources):
        terms = spoken[source][:, place] if source in spoken else np.empty(0)
        best = int(np.argmax(terms)) if terms.size and terms.max() > 0 else None
        reasons.append(Because(source, None if best is None else history[best]))
    return reasons
