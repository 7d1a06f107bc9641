"""The refinement of learned weights by what the lists find."""

import numpy as np
from scipy.sparse import csr_array

from offline.pairs import View
from offline.pools import Pool, Sources, judge
from offline.refinement import refine
from topk.item_table import F64

USERS, ITEMS = 300, 40
NONE = np.full((USERS, ITEMS), 1e-9)


def pool(factors: F64, votes: F64, scores: F64, *, found: int) -> Pool:
    """Return users who all have every item as a candidate, and look for those with the highest *scores*."""
    flat = [(each / each.max(axis=1, keepdims=True)).reshape(-1) for each in (factors, NONE, NONE, votes)]
    rows, counts = np.tile(np.arange(ITEMS), USERS), np.full(USERS, ITEMS)
    held = csr_array((scores >= np.sort(scores, axis=1)[:, -found][:, None]).astype(np.float64))
    return Pool(rows, counts, flat, held, np.full(USERS, 20), Sources((View(0.0, 0.5, 0.2, 1.0),), 0.05))


def test_a_weight_that_hides_the_best_items_is_lowered():
    """Factors that tell nothing lose their weight, and the lists find more."""
    factors, votes = np.random.default_rng(0).random((2, USERS, ITEMS))
    pools = [pool(factors, votes, votes, found=3)]
    start = np.array([0.6, 0.0, 0.0, 1.0])
    refined = refine(pools, start, [0, 3])
    assert refined[3] == 1
    assert refined[0] < 0.2
    assert judge(pools, refined, what="").relative_to(judge(pools, start, what="")) > 1.1


def test_a_source_without_a_weight_may_get_one():
    """Factors that tell a part of what is to be found come back."""
    factors, votes = np.random.default_rng(1).random((2, USERS, ITEMS))
    refined = refine([pool(factors, votes, votes + 0.4 * factors, found=5)], np.array([0.0, 0.01, 0.0, 1.0]), [0, 3])
    assert 0.1 < refined[0] < 1


def test_the_best_weights_stay():
    """No change is accepted that gains nothing."""
    factors, votes = np.random.default_rng(2).random((2, USERS, ITEMS))
    start = np.array([1.0, 0.0, 0.0, 0.7])
    assert refine([pool(factors, votes, factors + 0.7 * votes, found=5)], start, [0, 3]) is start
