"""
Refine the weights of the sources by what the lists find.

The learned weights maximise a likelihood that counts every held-out item, and the lists only have their first places.
The refinement tries other shares of the largest weight for one source at a time. It keeps a change that gains at least
`_LEAST` of NDCG@10 and Recall@20 and `_SURE` standard errors over the same users, so that few users cannot lead the weights
away by luck. The learned weights are near the best ones, and two rounds over all sources are enough.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from offline.evaluation.quality import score_lists
from offline.pools import Pool, complete
from offline.source_weights import scaled
from topk.item_table import F64

# Shares of the largest weight.
_SHARES = (0.0, 0.05, 0.15, 0.3, 0.5, 0.75, 1.0)
_ROUNDS = 2
# The best of about thirty changes gains by luck, so two standard errors would be too few.
_LEAST, _SURE = 0.005, 2.5


def refine(pools: Sequence[Pool], weights: F64, sources: Sequence[int]) -> F64:
    """
    Return *weights* after the changes of *sources* that improve the lists of all users of *pools*.

    Cost: at most fourteen rankings of the candidates for each source.
    """
    found = measure_users(pools, weights)
    for _ in range(_ROUNDS):
        before = weights
        for source in sources:
            tried = [(each, measure_users(pools, each)) for each in _change(weights, source)]
            best, measures = max(tried, key=lambda one: relative_gains(one[1], found).mean())
            gains = relative_gains(measures, found)
            if gains.mean() >= max(_LEAST, _SURE * standard_error(gains)):
                weights, found = best, measures
        if weights is before:
            break
    return weights


def measure_users(pools: Sequence[Pool], weights: F64) -> F64:
    """Return NDCG@10 and Recall@20 (2, U) of the users of all *pools*."""
    return np.concatenate([np.stack(score_lists(pool.lists(weights), pool.held)) for pool in pools], axis=1)


def relative_gains(after: F64, before: F64) -> F64:
    """Return each user's gain (U,): the mean over both measures (2, U), each relative to its mean of *before*."""
    means = np.maximum(before.mean(axis=1, keepdims=True), 1e-9)
    gains: F64 = ((after - before) / means).mean(axis=0)
    return gains


def standard_error(gains: F64) -> float:
    """Return the standard error of the mean of *gains* (U,)."""
    return float(gains.std() / np.sqrt(gains.size))


def _change(weights: F64, source: int) -> Iterator[F64]:
    """Yield *weights* with other weights of *source*."""
    for share in _SHARES:
        changed = weights.copy()
        changed[source] = share * float(weights.max())
        # Some source must have a weight.
        if changed.any():
            yield complete(scaled(changed))
