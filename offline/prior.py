"""
Fit the feature prior: a regression that predicts the user vector from the four user features.

The strength of the regression is the one with the least leave-one-out error in the metric of the catalogue. If no
strength is better than the mean user vector, the weights are 0 and every user starts from the mean.
"""

from collections.abc import Sequence

import numpy as np

from recrank.prior import FeaturePrior, encode, numbers
from recsys.contracts.wire import Features
from topk.item_table import F32, F64

QUANTILES = (0.02, 0.25, 0.5, 0.75, 0.98)
STRENGTHS = tuple(10.0**power for power in range(6))


def fit_prior(features: Sequence[Features], vectors: F32, *, metric: F32) -> FeaturePrior:
    """
    Regress trained *vectors* on *features*.

    Args:
        features: Features of each user.
        vectors: (U, D) float32; user vectors trained without a prior.
        metric: (D,) float32; weight of an error in each direction, the diagonal of the shared normal equations.

    Cost: U F^2 + U F D multiply-adds for each of seven strengths, F at most 21.
    """
    session, purchases, engagement = fit_knots(features)
    encoded = np.stack([encode(each, (session, purchases, engagement)) for each in features])
    centre, mean = encoded.mean(axis=0), vectors.mean(axis=0, dtype=np.float64)
    weights = _best_ridge(encoded - centre, vectors - mean, metric)
    return FeaturePrior(
        (session, purchases, engagement),
        weights=weights.astype(np.float32),
        base=(mean - centre @ weights).astype(np.float32),
    )


def fit_knots(features: Sequence[Features]) -> list[tuple[float, ...]]:
    """Return distinct quantiles of the three numeric features, each rising."""
    columns = np.array([numbers(each) for each in features]).T
    # The artefact stores float32, so rounding here makes training and serving encode features identically.
    return [tuple(np.unique(np.quantile(column, QUANTILES).astype(np.float32)).tolist()) for column in columns]


def _best_ridge(encoded: F64, targets: F64, metric: F32) -> F64:
    """Return W (F, D) for the strength with the least leave-one-out error; zeros if no strength beats the mean."""
    users, width = encoded.shape
    best = np.zeros((width, targets.shape[1]))
    error = float((targets**2 @ metric).sum()) * (users / max(users - 1, 1)) ** 2
    for strength in STRENGTHS:
        solve = np.linalg.solve(encoded.T @ encoded + strength * np.eye(width), encoded.T)
        weights = solve @ targets
        leverage = 1 / users + np.einsum("uf,fu->u", encoded, solve)
        residual = (targets - encoded @ weights) / (1 - np.minimum(leverage, 0.99))[:, None]
        left_out = float((residual**2 @ metric).sum())
        if left_out < error:
            best, error = weights, left_out
    return best
