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


def test_popularity_counts_users(weights):
    """Everybody gets the same scores: the users of each item."""
    scores = fit_popularity(weights)(np.array([3, 5]))
    assert (scores == (weights.toarray() > 0).sum(axis=0)).all()


def test_cosine_against_its_formula(weights):
    """With all neighbours kept: history times the cosines of the columns of log1p weights."""
    logs = np.log1p(weights.toarray().astype(np.float64))
    units = logs / np.linalg.norm(logs, axis=0)
    users = np.array([0, 7, 39])
    np.testing.assert_allclose(fit_cosine(weights, neighbours=30)(users), logs[users] @ (units.T @ units), rtol=1e-5)


def test_bm25_against_its_formula(weights):
    """With all neighbours kept: term frequency saturates, long items are discounted, busy users say less."""
    logs = np.log1p(weights.toarray().astype(np.float64))
    length = logs.sum(axis=0)
    rarity = np.log(30) - np.log1p((logs > 0).sum(axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        weighted = logs * 2.2 / (1.2 * (0.25 + 0.75 * length / length.mean()) + logs) * rarity[:, None]
    kept = np.maximum(weighted.T @ weighted, 0)
    np.testing.assert_allclose(fit_bm25(weights, neighbours=30)(np.arange(40)), logs @ kept, rtol=1e-4, atol=1e-6)


def test_the_walk_against_its_formula(weights):
    """With all neighbours kept: item to user to item, each evenly, over popularity to the power beta; never back."""
    ones = (weights.toarray() > 0).astype(np.float64)
    walk = (ones.T / ones.sum(axis=0)[:, None]) @ (ones / ones.sum(axis=1)[:, None]) * ones.sum(axis=0) ** -0.3
    np.fill_diagonal(walk, 0)
    np.testing.assert_allclose(fit_walk(weights, neighbours=30)(np.arange(40)), ones @ walk, rtol=1e-5)


@pytest.mark.parametrize("name", BASELINES)
def test_blocks_make_no_difference(name, weights, monkeypatch):
    """Items are worked on in blocks, so that memory stays bounded; the scores are the same."""
    whole = BASELINES[name](weights)(np.arange(40))
    monkeypatch.setattr(baselines, "_BLOCK_ITEMS", 7)
    np.testing.assert_allclose(BASELINES[name](weights)(np.arange(40)), whole, rtol=1e-6)


def test_only_the_nearest_neighbours_are_kept(weights):
    """A user of one item gets scores for as many items as there are neighbours, ties by lower column."""
    scores = fit_walk(weights, neighbours=4)(np.arange(40))
    single = csr_array(np.eye(30, dtype=np.float32))
    assert ((scores > 0).sum(axis=1) <= 4 * np.diff(weights.indptr)).all()
    assert fit_walk(single)(np.arange(30)).sum() == 0


def test_lists_leave_out_what_was_consumed_and_break_ties_by_column():
    """The best first; -1 where nothing is left."""
    scores = np.zeros((2, 25), np.float32)
    scores[0, [4, 9]] = 2, 3
    consumed = csr_array(np.array([[1] * 2 + [0] * 23, [0] * 3 + [1] * 22]))
    lists = list_best(scores, consumed)
    assert lists[0].tolist() == [9, 4, 2, 3, 5, 6, 7, 8, *range(10, 22)]
    assert lists[1].tolist() == [0, 1, 2] + [-1] * 17
    assert (scores[1] == 0).all()
