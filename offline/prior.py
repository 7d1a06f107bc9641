"""
Fitting the feature prior: what the four user features say about a user's vector.

The strength of the regression is chosen by leave-one-out error in the metric of the catalogue, with "the features say
nothing" among the choices: where they do not help, everybody starts from the mean user.
"""

from collections.abc import Sequence

import numpy as np

from recsys.contracts.wire import Features
from recsys.ranking.item_table import F32, F64
from recsys.ranking.prior import FeaturePrior, encode, numbers

QUANTILES = (0.02, 0.25, 0.5, 0.75, 0.98)
STRENGTHS = tuple(10.0**power for power in range(6))


def fit_prior(features: Sequence[Features], vectors: F32, *, metric: F32) -> FeaturePrior:
    """
    Regress trained *vectors* on *features*.

    Args:
        features: One per user.
        vectors: (U, D) float32; trained, without a prior.
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
    # Rounded as the artefact stores them, so that training and serving encode alike.
    return [tuple(np.unique(np.quantile(column, QUANTILES).astype(np.float32)).tolist()) for column in columns]


def _best_ridge(encoded: F64, targets: F64, metric: F32) -> F64:
    """Return W (F, D) of the strength with the least leave-one-out error; zeros if none beats the mean."""
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
