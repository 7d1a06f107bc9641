"""
Learn the weights of the sources with a linear listwise ranker.

The softmax of the blended scores gives each of a user's candidates a probability. The weights maximise the likelihood
of the held-out items; every user counts the same:

    minimise  - mean over users of mean over found items of log softmax(columns @ w)[item]  +  strength / 2 |w - start|^2

with no weight below 0. The objective is smooth and convex, so a few hundred users are enough, without a grid search. A
grid search by ranking measures chose different sources for every sample, because of noise (docs/adr/0036-blend.md).

Source: Cao et al. 2007, "Learning to rank: from pairwise approach to listwise approach" (ListNet, top one).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from topk.item_table import F64, I64

# Weights below this share of the largest gain less than the source costs at serving.
_LEAST_SHARE = 0.03


def fit_weights(
    columns: Sequence[F64], counts: I64, found: NDArray[np.bool_], *, start: F64, strength: float
) -> NDArray[np.float64]:
    """
    Return one weight per source, in the units of the softmax; see `scaled`.

    Args:
        columns: Normalised scores (N,) of all candidates for each source, grouped by user.
        counts: (U,) number of candidates of each user.
        found: (N,) bool; True if the candidate is held out for its user.
        start: (S,) weights that the result is pulled towards, in the units of the softmax.
        strength: Strength of this pull.
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
    """Scale *weights* so that the largest is 1, round to three decimals, and set weights below 3 % to 0."""
    relative = weights / max(float(weights.max()), 1e-12)
    return np.where(relative < _LEAST_SHARE, 0.0, np.round(relative, 3))
