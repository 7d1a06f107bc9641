from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array

from offline.als import AlsSettings, attention, item_ridges, suggest_settings, train_als, unobserved_weights
from recrank.fold_in import FoldIn
from topk.row_lists import RowLists

SMALL = AlsSettings(factors=16)


def interactions(users: int = 80, items: int = 120, seed: int = 0) -> csr_array:
    rng = np.random.default_rng(seed)
    dense = rng.random((users, items)) < rng.random(items) * 0.3
    dense[:, :1] = True
    matrix = csr_array(dense * rng.integers(1, 200, (users, items)))
    matrix.sort_indices()
    return matrix


def objective(data: csr_array, settings: AlsSettings) -> float:
    """Return the sum in the docstring of offline/als.py, for the trained items and the best users for them."""
    model = train_als(data, settings)
    counts = np.diff(csr_array(data.T.tocsr()).indptr).astype(np.int64)
    unobserved = unobserved_weights(counts, settings)
    y = model.items.astype(np.float64)
    total = (item_ridges(counts, data.shape[0], settings) * (y**2).sum(axis=1)).sum()
    for user in range(data.shape[0]):
        row = slice(data.indptr[user], data.indptr[user + 1])
        chosen, confidence = y[data.indices[row]], attention(data, settings.weight_exponent)[row].astype(np.float64)
        shared = (y * unobserved[:, None]).T @ y + settings.ridge * np.eye(y.shape[1])
        x = np.linalg.solve(shared + (chosen * confidence[:, None]).T @ chosen, confidence @ chosen)
        total += confidence @ (1 - chosen @ x) ** 2 + unobserved @ (y @ x) ** 2 + settings.ridge * x @ x
    return float(total)


def test_every_epoch_lowers_the_objective():
    """Each epoch of alternating minimization lowers the objective."""
    data = interactions()
    values = [objective(data, replace(SMALL, epochs=epochs, unobserved_weight=0.1)) for epochs in (1, 2, 3, 5, 8)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.95 * values[0]


def test_folded_in_users_equal_the_trained_ones():
    """A vector folded in from a training history equals the trained vector, so training and serving do not differ."""
    data = interactions()
    model = train_als(data, SMALL)
    fold = FoldIn(model.items, model.gram + np.float32(model.ridge), prior_strength=0.0)
    histories = RowLists.of([row.astype(np.int64) for row in np.split(data.indices, data.indptr[1:-1])])
    vectors = fold.users(histories, priors=np.zeros(model.users.shape))
    np.testing.assert_allclose(vectors, model.users, atol=1e-5)


def test_training_is_deterministic():
    """The same data and seed give the same bytes for any number of workers."""
    data = interactions()
    once = train_als(data, SMALL, workers=1)
    again = train_als(data, SMALL, workers=3)
    assert once.items.tobytes() == again.items.tobytes()
    assert once.users.tobytes() == again.users.tobytes()
    assert once.items.tobytes() != train_als(data, replace(SMALL, seed=1)).items.tobytes()


def test_the_shared_gram_matrix_is_diagonal():
    """The exported basis is the eigenbasis of the weighted Gram matrix, ordered by decreasing eigenvalue."""
    data = interactions()
    settings = replace(SMALL, factors=8)
    model = train_als(data, settings)
    weights = unobserved_weights(model.counts, settings)
    gram = (model.items * weights[:, None]).T @ model.items
    np.testing.assert_allclose(gram, np.diag(model.gram), atol=1e-4 * model.gram[0])
    assert (np.diff(model.gram) <= 0).all()


def test_blocks_of_taste_are_recovered():
    """In checkerboard data each user is recommended the one item of their half that they lack."""
    dense = np.zeros((40, 40), np.int64)
    dense[:20, :20] = dense[20:, 20:] = 1
    np.fill_diagonal(dense, 0)
    data = csr_array(dense)
    model = train_als(data, AlsSettings(factors=4, ridge=0.5, unobserved_weight=0.2))
    scores = model.users @ model.items.T
    scores[data.nonzero()] = -np.inf
    assert (scores.argmax(axis=1) == np.arange(40)).all()


def test_items_without_users_have_a_zero_factor():
    """An item without interactions has a zero vector and therefore scores 0."""
    data = interactions()
    wider = csr_array((data.data, data.indices, data.indptr), shape=(80, 130))
    assert (train_als(wider, replace(SMALL, factors=8)).items[120:] == 0).all()


def test_equal_weights_give_equal_attention():
    """Data without weights is trained as plain implicit feedback."""
    data = interactions()
    flat = csr_array((np.ones(data.nnz), data.indices, data.indptr), shape=data.shape)
    assert (attention(flat, 0.42) == 1).all()


def test_attention_is_relative_to_the_user():
    """A user's strongest interactions count most, and users with larger weights do not count more than others."""
    data = csr_array(np.array([[1, 10, 100], [1000, 10_000, 100_000]]))
    got = attention(data, 0.42).reshape(2, 3)
    assert (np.diff(got, axis=1) > 0).all()
    np.testing.assert_allclose(got[0], got[1], rtol=0.1)
    assert got.mean() == pytest.approx(1)


def test_suggested_settings_follow_the_size():
    """The ridge grows with the noise of the data, and Last.fm 2k gets nearly its hand-tuned settings."""
    lastfm = suggest_settings(1892, 17_632, 74_294)
    assert lastfm.factors == 128
    assert lastfm.ridge == pytest.approx(3.0, rel=0.15)
    assert lastfm.unobserved_weight == pytest.approx(0.0175, rel=0.3)
    assert suggest_settings(1892, 17_632, 4 * 74_294).ridge == pytest.approx(2 * lastfm.ridge)
    assert suggest_settings(1000, 1000, 36_000).factors == 64
    assert suggest_settings(10**6, 10**6, 10**7).factors == 64
