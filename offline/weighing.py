"""
Learn how much each source counts: a linear listwise ranker.

A user's candidates get probabilities by the softmax of their blended scores, and the weights maximise the likelihood
of the held-out items, every user counting once:

    minimise  - mean over users of mean over found items of log softmax(columns @ w)[item]  +  strength / 2 |w - start|^2

with no weight below 0. The objective is smooth and convex, so a few hundred users are enough and no grid is searched;
ranking measures alone, tried on a grid, picked other sources from the noise of every sample (docs/adr/0032-blend.md).

Source: Cao et al. 2007, "Learning to rank: from pairwise approach to listwise approach" (ListNet, top one).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from recsys.ranking.item_table import F64, I64

# Weights below this share of the largest bring less than they cost at serving.
_LEAST_SHARE = 0.03


def fit_weights(
    columns: Sequence[F64], counts: I64, found: NDArray[np.bool_], *, start: F64, strength: float
) -> NDArray[np.float64]:
    """
    Return one weight per source, in the units of the softmax; see `scaled`.

    Args:
        columns: Per source the normalised scores (N,) of all candidates, grouped by user.
        counts: (U,) candidates of each user.
        found: (N,) whether a candidate is held out for its user.
        start: (S,) weights to stay near to, in the units of the softmax.
        strength: How strongly.
    """
    owners = np.repeat(np.arange(counts.size), counts)
    hits = np.bincount(owners, found, counts.size)
    judged = hits > 0
    if not judged.any():
        return start
    kept = judged[owners]
    table = np.stack([column[kept] for column in columns], axis=1)
    owner = (np.cumsum(judged) - 1)[owners[kept]]
    starts = np.concatenate(([0], np.cumsum(counts[judged])[:-1]))
    targets = found[kept] / hits[judged][owner]

    def loss(weights: F64) -> tuple[float, F64]:
        scores = table @ weights
        scores -= np.maximum.reduceat(scores, starts)[owner]
        raised = np.exp(scores)
        sums = np.add.reduceat(raised, starts)
        likelihood = targets @ (scores - np.log(sums)[owner])
        slope = (raised / sums[owner] - targets) @ table
        away = weights - start
        return (
            -float(likelihood) / starts.size + strength / 2 * float(away @ away),
            slope / starts.size + strength * away,
        )

    result = minimize(loss, np.maximum(start, 1.0), jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(columns))
    return np.asarray(result.x, np.float64)


def scaled(weights: F64) -> F64:
    """Return *weights* with the largest 1, to three decimals, and what is below 3 % of it 0."""
    relative = weights / max(float(weights.max()), 1e-12)
    return np.where(relative < _LEAST_SHARE, 0.0, np.round(relative, 3))
