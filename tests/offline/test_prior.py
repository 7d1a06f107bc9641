import numpy as np

from offline.prior import fit_knots, fit_prior
from recsys.contracts.wire import Features
from recsys.features import AGE_GROUPS
from recsys.ranking.prior import encode


def people(count: int, seed: int = 0) -> list[Features]:
    rng = np.random.default_rng(seed)
    return [
        Features(AGE_GROUPS[rng.integers(7)], float(rng.gamma(2, 300)), int(rng.poisson(5)), float(rng.random()))
        for _ in range(count)
    ]


def test_informative_features_move_the_prior():
    """Vectors planted on the features are predicted for people never seen."""
    everybody = people(600)
    encoded = np.stack([encode(each, fit_knots(everybody)) for each in everybody])
    planted = (encoded @ np.random.default_rng(1).standard_normal((encoded.shape[1], 8))).astype(np.float32)
    prior = fit_prior(everybody[:500], planted[:500], metric=np.ones(8, np.float32))
    predicted = np.stack([prior.mean(each) for each in everybody[500:]])
    assert ((predicted - planted[500:]) ** 2).mean() < 0.02 * planted.var()


def test_uninformative_features_leave_the_mean():
    """Noise is not learnt: the prior stays near the mean vector for everybody."""
    noise = np.random.default_rng(2).standard_normal((500, 8)).astype(np.float32)
    prior = fit_prior(people(500), noise, metric=np.ones(8, np.float32))
    predicted = np.stack([prior.mean(each) for each in people(200, seed=3)])
    assert np.abs(predicted - noise.mean(axis=0)).std() < 0.05


def test_users_who_are_all_alike_need_no_knots_between():
    """Features that are the same for everybody give one knot and the mean vector, not a division by zero."""
    alike = [Features("unknown", 0.0, 0, 0.5)] * 20
    vectors = np.random.default_rng(3).standard_normal((20, 4)).astype(np.float32)
    assert fit_knots(alike) == [(0.0,), (0.0,), (0.5,)]
    prior = fit_prior(alike, vectors, metric=np.ones(4, np.float32))
    np.testing.assert_allclose(prior.mean(alike[0]), vectors.mean(axis=0), atol=1e-5)
