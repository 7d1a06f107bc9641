"""The choice between learned weights, the factors alone, one sharpened source, and a further view."""

import numpy as np
from scipy.sparse import csr_array

from offline.lengths import accept
from offline.pairs import View
from offline.pools import Pool, Sources, complete, learn
from offline.selection import NEAR_VIEWS, ORDERED_VIEWS, WHOLE_VIEWS, choose_views
from offline.source_weights import scaled
from topk.item_table import F64

USERS, ITEMS = 400, 60
VIEWS = (View(0.0, 0.5, 0.2, 1.0),)


def pool(columns: list[F64], held: np.ndarray, views: tuple[View, ...] = VIEWS) -> Pool:
    """Return users who all have every item as a candidate; *columns* (U, I) are the sources' scores."""
    flat = [(each / each.max(axis=1, keepdims=True)).reshape(-1) for each in columns]
    rows, counts = np.tile(np.arange(ITEMS), USERS), np.full(USERS, ITEMS)
    return Pool(rows, counts, flat, csr_array(held.astype(np.float64)), np.full(USERS, 20), Sources(views, 0.05))


def wanted(scores: F64, number: int) -> np.ndarray:
    """Return (U, I) bool: the *number* items with the highest scores of each user."""
    return scores >= np.sort(scores, axis=1)[:, -number][:, None]


def learned(pools: list[Pool]) -> F64:
    sources = pools[0].sources
    return complete(scaled(learn(pools, np.zeros(len(sources)), sources.of_present())))


def test_learned_weights_are_kept_if_they_gain():
    """Two sources that each tell a part beat one of them, and the learned weights stay."""
    rng = np.random.default_rng(0)
    factors, votes = rng.random((2, USERS, ITEMS))
    none = np.full((USERS, ITEMS), 1e-9)
    pools = [pool([factors, none, none, votes], wanted(factors + votes, 5))]
    weights = learned(pools)
    chosen, trials = accept(pools, weights, what="users")
    assert chosen.tolist() == weights.tolist()
    assert trials[1].relative_to(trials[0]) > 1.2


def test_the_factors_rank_alone_if_nothing_gains():
    """Random votes do not displace the factors."""
    rng = np.random.default_rng(1)
    factors, votes = rng.random((2, USERS, ITEMS))
    none = np.full((USERS, ITEMS), 1e-9)
    pools = [pool([factors, none, none, votes], wanted(factors, 3))]
    chosen, _ = accept(pools, np.array([1.0, 0.0, 0.0, 0.4]), what="users")
    assert chosen.tolist() == [1.0, 0.0, 0.0, 0.0]


def test_a_source_that_is_nearly_sure_is_sharpened():
    """Weights that lean towards weak sources give way to the strongest source with a share of them."""
    rng = np.random.default_rng(2)
    factors, popularity, votes = rng.random((3, USERS, ITEMS))
    none = np.full((USERS, ITEMS), 1e-9)
    pools = [pool([factors, popularity, none, votes], wanted(votes, 2))]
    chosen, trials = accept(pools, np.array([0.8, 0.9, 0.0, 1.0]), what="users")
    assert chosen[3] == 1
    assert max(chosen[:3]) < 0.2
    assert trials[2].ndcg_10 > 1.01 * trials[1].ndcg_10


def test_a_view_of_the_whole_history_must_gain():
    """At most one view of the whole history joins: the one that tells most. Without a gain, none does."""
    rng = np.random.default_rng(3)
    factors, newest, last, near, together = rng.random((5, USERS, ITEMS))
    none = np.full((USERS, ITEMS), 1e-9)
    columns = [factors, none, none, newest, last, near, together]
    for told, views in (
        (2 * near + together, (*NEAR_VIEWS, WHOLE_VIEWS[0])),
        (2 * together, (*NEAR_VIEWS, WHOLE_VIEWS[1])),
        (0, NEAR_VIEWS),
    ):
        chosen, weights, trials = choose_views([pool(columns, wanted(factors + newest + told, 5), ORDERED_VIEWS)])
        assert chosen[0].sources.views == views
        assert weights.size == len(chosen[0].columns) == 3 + len(views)
        assert len(trials) == 3
