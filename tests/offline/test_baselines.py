import numpy as np
import pytest
from scipy.sparse import csr_array

from offline.evaluation import baselines
from offline.evaluation.baselines import BASELINES, fit_bm25, fit_cosine, fit_popularity, fit_walk, list_best


@pytest.fixture
def weights() -> csr_array:
    rng = np.random.default_rng(0)
    dense = (rng.random((40, 30)) < 0.2) * rng.integers(1, 50, (40, 30))
    dense[0], dense[:, 0] = 1, 1
    np.fill_diagonal(dense[:30], 3)
    return csr_array(dense.astype(np.float32))


def test_popularity_counts_the_users_of_an_item(weights):
    """Every user gets the same scores, the number of users of each item."""
    scores = fit_popularity(weights)(np.array([3, 5]))
    assert (scores == (weights.toarray() > 0).sum(axis=0)).all()


def test_cosine_equals_its_formula(weights):
    """With all neighbours kept, the score is the history times the cosines between columns of log1p weights."""
    logs = np.log1p(weights.toarray().astype(np.float64))
    units = logs / np.linalg.norm(logs, axis=0)
    users = np.array([0, 7, 39])
    np.testing.assert_allclose(fit_cosine(weights, neighbours=30)(users), logs[users] @ (units.T @ units), rtol=1e-5)


def test_bm25_equals_its_formula(weights):
    """With all neighbours kept, term frequency saturates, popular items are discounted, and active users count less."""
    logs = np.log1p(weights.toarray().astype(np.float64))
    length = logs.sum(axis=0)
    rarity = np.log(30) - np.log1p((logs > 0).sum(axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        weighted = logs * 2.2 / (1.2 * (0.25 + 0.75 * length / length.mean()) + logs) * rarity[:, None]
    kept = np.maximum(weighted.T @ weighted, 0)
    np.testing.assert_allclose(fit_bm25(weights, neighbours=30)(np.arange(40)), logs @ kept, rtol=1e-4, atol=1e-6)


def test_the_random_walk_equals_its_formula(weights):
    """With all neighbours kept, the walk goes from item to user to item, over popularity**beta, and never back."""
    ones = (weights.toarray() > 0).astype(np.float64)
    walk = (ones.T / ones.sum(axis=0)[:, None]) @ (ones / ones.sum(axis=1)[:, None]) * ones.sum(axis=0) ** -0.3
    np.fill_diagonal(walk, 0)
    np.testing.assert_allclose(fit_walk(weights, neighbours=30)(np.arange(40)), ones @ walk, rtol=1e-5)


@pytest.mark.parametrize("name", BASELINES)
def test_blocks_do_not_change_the_scores(name, weights, monkeypatch):
    """Items are processed in blocks to limit memory, and the block size does not change the scores."""
    whole = BASELINES[name](weights)(np.arange(40))
    monkeypatch.setattr(baselines, "_BLOCK_ITEMS", 7)
    np.testing.assert_allclose(BASELINES[name](weights)(np.arange(40)), whole, rtol=1e-6)


def test_only_the_nearest_neighbours_are_kept(weights):
    """A user of one item gets scores for as many items as there are neighbours; ties go to the lower column."""
    scores = fit_walk(weights, neighbours=4)(np.arange(40))
    single = csr_array(np.eye(30, dtype=np.float32))
    assert ((scores > 0).sum(axis=1) <= 4 * np.diff(weights.indptr)).all()
    assert fit_walk(single)(np.arange(30)).sum() == 0


def test_lists_exclude_consumed_items_and_break_ties_by_column():
    """The list is ordered best first and padded with -1."""
    scores = np.zeros((2, 25), np.float32)
    scores[0, [4, 9]] = 2, 3
    consumed = csr_array(np.array([[1] * 2 + [0] * 23, [0] * 3 + [1] * 22]))
    lists = list_best(scores, consumed)
    assert lists[0].tolist() == [9, 4, 2, 3, 5, 6, 7, 8, *range(10, 22)]
    assert lists[1].tolist() == [0, 1, 2] + [-1] * 17
    assert (scores[1] == 0).all()
