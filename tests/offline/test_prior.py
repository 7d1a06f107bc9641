import numpy as np

from offline.prior import fit_knots, fit_prior
from recrank.prior import encode
from recsys.contracts.wire import Features
from recsys.features import AGE_GROUPS


def random_features(count: int, seed: int = 0) -> list[Features]:
    rng = np.random.default_rng(seed)
    return [
        Features(AGE_GROUPS[rng.integers(7)], float(rng.gamma(2, 300)), int(rng.poisson(5)), float(rng.random()))
        for _ in range(count)
    ]


def test_informative_features_move_the_prior():
    """The prior predicts vectors that depend on the features for users outside the fit."""
    everybody = random_features(600)
    encoded = np.stack([encode(each, fit_knots(everybody)) for each in everybody])
    planted = (encoded @ np.random.default_rng(1).standard_normal((encoded.shape[1], 8))).astype(np.float32)
    prior = fit_prior(everybody[:500], planted[:500], metric=np.ones(8, np.float32))
    predicted = prior.means(everybody[500:])
    assert ((predicted - planted[500:]) ** 2).mean() < 0.02 * planted.var()


def test_uninformative_features_leave_the_mean():
    """The prior does not learn noise and stays near the mean vector."""
    noise = np.random.default_rng(2).standard_normal((500, 8)).astype(np.float32)
    prior = fit_prior(random_features(500), noise, metric=np.ones(8, np.float32))
    predicted = prior.means(random_features(200, seed=3))
    assert np.abs(predicted - noise.mean(axis=0)).std() < 0.05


def test_identical_users_get_one_knot():
    """Features without variation give one knot and the mean vector instead of a division by zero."""
    alike = [Features("unknown", 0.0, 0, 0.5)] * 20
    vectors = np.random.default_rng(3).standard_normal((20, 4)).astype(np.float32)
    assert fit_knots(alike) == [(0.0,), (0.0,), (0.5,)]
    prior = fit_prior(alike, vectors, metric=np.ones(4, np.float32))
    np.testing.assert_allclose(prior.means(alike[:1])[0], vectors.mean(axis=0), atol=1e-5)
