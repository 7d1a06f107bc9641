import numpy as np
import pytest

from chassis.batching.costs import BatchCosts


def costs_after(batches):
    costs = BatchCosts()
    for size, seconds in batches:
        costs.note(size, seconds)
    return costs


def test_the_cost_is_zero_before_the_first_batch():
    """The expected cost is 0 while no batch has run."""
    assert BatchCosts().expect(32) == 0.0


@pytest.mark.parametrize(("fixed", "each"), [(0.0, 0.001), (0.050, 0.0), (0.010, 0.0005)])
def test_costs_follow_a_line(fixed, each):
    """The estimate separates the fixed cost from the cost per item and holds for sizes not yet seen."""
    sizes = np.random.default_rng(1).integers(1, 33, 60)
    costs = costs_after([(int(size), fixed + each * int(size)) for size in sizes])
    for size in (1, 16, 32, 64):
        assert costs.expect(size) == pytest.approx(fixed + each * size, rel=0.02)


def test_batches_of_one_size_do_not_split_the_cost():
    """With batches of one size the fixed part is unknown, so one item may cost as much as a full batch."""
    assert costs_after([(32, 0.050)] * 20).expect(1) == pytest.approx(0.050)


def test_single_requests_predict_full_batches():
    """With single requests only, a batch is expected to cost as much as its items one by one."""
    assert costs_after([(1, 0.002)] * 20).expect(32) == pytest.approx(0.064)


def test_old_costs_are_forgotten():
    """The estimate follows a model that becomes slower within some batches."""
    costs = costs_after([(4, 0.001)] * 50 + [(4, 0.020)] * 20)
    assert costs.expect(4) == pytest.approx(0.020, rel=0.05)
