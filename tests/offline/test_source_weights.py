import numpy as np
import pytest

from offline.source_weights import fit_weights, scaled


def make_users(users: int, *, candidates: int = 20) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Return users whose found item the second source predicts well, the first slightly, and the third not at all."""
    rng = np.random.default_rng(0)
    columns = [rng.random(users * candidates) for _ in range(3)]
    strength = columns[0] + 4 * columns[1] + rng.gumbel(size=users * candidates) * 0.3
    best = strength.reshape(users, candidates).argmax(axis=1)
    found = np.zeros((users, candidates), np.bool_)
    found[np.arange(users), best] = True
    return columns, np.full(users, candidates), found.reshape(-1)


def test_sources_are_weighed_by_what_they_tell():
    """The learned weights are near those that generated the data, and a source of noise gets no weight."""
    columns, counts, found = make_users(1000)
    weights = scaled(fit_weights(columns, counts, found, start=np.zeros(3), strength=1e-4))
    assert weights[1] == 1
    assert weights[0] == pytest.approx(0.25, abs=0.1)
    assert weights[2] < 0.1


def test_no_weight_is_below_zero():
    """A source with low scores for the found items gets weight 0, not a negative weight."""
    columns, counts, found = make_users(300)
    weights = fit_weights([-columns[1], columns[0]], counts, found, start=np.zeros(2), strength=1e-4)
    assert weights[0] == 0
    assert weights[1] > 0


def test_few_users_stay_near_the_start():
    """A strong pull keeps weights from few users near the start; without found items they stay at the start."""
    columns, counts, found = make_users(5)
    start = np.array([3.0, 1.0, 2.0])
    assert fit_weights(columns, counts, np.zeros_like(found), start=start, strength=0.01).tolist() == start.tolist()
    near = fit_weights(columns, counts, found, start=start, strength=100.0)
    assert near == pytest.approx(start, abs=0.05)


def test_weights_are_scaled_and_small_ones_dropped():
    """The largest weight becomes 1, and weights below 3 % of it become 0."""
    assert scaled(np.array([4.0, 1.0, 0.1])).tolist() == [1.0, 0.25, 0.0]
