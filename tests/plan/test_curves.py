"""Fits of curves whose parameters are known."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.plan.curves import BatchCost, Scalability, TooFewError, fit_batch_cost, fit_scalability


@given(
    per_item_s=st.floats(1e-6, 1e-2),
    fixed_s=st.floats(1e-5, 0.2),
    sizes=st.lists(st.integers(1, 64), min_size=2, max_size=12, unique=True),
)
def test_an_exact_line_is_recovered(per_item_s, fixed_s, sizes):
    """Batches that take exactly a*n + b are fitted with the same a and b."""
    batches = [(size, per_item_s * size + fixed_s) for size in sizes for _ in range(size)]
    fitted = fit_batch_cost(batches)
    assert fitted.per_item_s == pytest.approx(per_item_s, rel=1e-4, abs=1e-9)
    assert fitted.fixed_s == pytest.approx(fixed_s, rel=1e-4, abs=1e-8)


@given(st.integers(0, 1000))
@settings(max_examples=30)
def test_a_noisy_line_is_recovered(seed):
    """Noise of a quarter and a tenfold outlier in one batch of twenty change the line by a few percent."""
    rng = random.Random(seed)
    batches = []
    for _ in range(1500):
        size = rng.randint(1, 32)
        seconds = (0.0004 * size + 0.010) * rng.uniform(0.75, 1.25) * (10 if rng.random() < 0.05 else 1)
        batches += [(size, seconds)] * size
    fitted = fit_batch_cost(batches)
    for size in (1, 16, 32):
        assert fitted.time_s(size) == pytest.approx(0.0004 * size + 0.010, rel=0.15)


def test_batch_costs_are_never_negative():
    """If noise makes larger batches look cheaper, neither part of the cost becomes negative."""
    fitted = fit_batch_cost([(1, 0.052), (2, 0.051), (2, 0.051), (3, 0.050)])
    assert fitted.per_item_s == 0
    assert fitted.fixed_s == pytest.approx(0.051, rel=0.02)


def test_one_batch_size_predicts_no_gain():
    """Single requests alone do not predict a gain from batching."""
    fitted = fit_batch_cost([(1, 0.05)] * 10)
    assert (fitted.per_item_s, fitted.fixed_s, fitted.sizes) == (0.05, 0.0, 1)
    assert fitted.ceiling_rps(32) == pytest.approx(20)


def test_a_fit_without_batches_is_refused():
    """A fit without any batch raises TooFewError."""
    with pytest.raises(TooFewError):
        fit_batch_cost([])


def test_full_batches_set_the_ceiling():
    """32 requests in 50 ms + 32 * 0.5 ms are 485 requests per second."""
    assert BatchCost(0.0005, 0.050).ceiling_rps(32) == pytest.approx(32 / 0.066)


@given(
    rate=st.floats(1, 1000),
    contention=st.floats(0, 0.5),
    crosstalk=st.floats(0, 0.01),
    levels=st.lists(st.integers(1, 128), min_size=3, max_size=10, unique=True),
)
def test_an_exact_law_is_recovered(rate, contention, crosstalk, levels):
    """A fit to throughput that follows the law predicts every level, also between the measured ones."""
    law = Scalability(rate, contention, crosstalk)
    fitted = fit_scalability([(level, law.rps(level)) for level in levels])
    for level in range(min(levels), max(levels) + 1):
        assert fitted.rps(level) == pytest.approx(law.rps(level), rel=1e-3)


def test_the_limit_is_the_peak_of_the_law():
    """With crosstalk the throughput has a peak, and the limit is that peak."""
    law = Scalability(100, 0.05, 0.002)
    assert law.limit_rps == pytest.approx(max(law.rps(n) for n in range(1, 200)), rel=1e-3)


def test_contention_sets_the_knee():
    """Without crosstalk the limit is the rate of the serial part, and the knee is the inverse of the contention."""
    law = Scalability(10, 0.1, 0.0)
    assert law.limit_rps == pytest.approx(100)
    assert law.knee == pytest.approx(10)


def test_linear_throughput_has_no_knee():
    """A fit to throughput that grows with every caller has no knee within reach."""
    fitted = fit_scalability([(n, 20.0 * n) for n in (1, 2, 4, 8)])
    assert fitted.rps(16) == pytest.approx(320)
    assert fitted.knee > 1e3


def test_flat_throughput_stays_flat():
    """The prediction for throughput that one caller saturates stays at that throughput."""
    fitted = fit_scalability([(n, 50.0) for n in (1, 2, 4, 8)])
    assert fitted.rps(32) == pytest.approx(50, rel=0.05)


def test_two_levels_are_too_few():
    """A fit of three parameters needs three levels."""
    with pytest.raises(TooFewError):
        fit_scalability([(1, 10), (2, 20), (2, 21)])
