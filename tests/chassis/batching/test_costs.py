import numpy as np
import pytest

from chassis.batching.costs import BatchCosts


def taught(batches):
    costs = BatchCosts()
    for size, seconds in batches:
        costs.note(size, seconds)
    return costs


def test_nothing_is_expected_of_what_never_ran():
    """Before the first batch the cost is unknown, and 0."""
    assert BatchCosts().expect(32) == 0.0


@pytest.mark.parametrize(("fixed", "each"), [(0.0, 0.001), (0.050, 0.0), (0.010, 0.0005)])
def test_a_line_is_found(fixed, each):
    """The fixed part and the part of each item are told apart, also for sizes not seen."""
    sizes = np.random.default_rng(1).integers(1, 33, 60)
    costs = taught([(int(size), fixed + each * int(size)) for size in sizes])
    for size in (1, 16, 32, 64):
        assert costs.expect(size) == pytest.approx(fixed + each * size, rel=0.02)


def test_full_batches_do_not_make_a_lone_request_look_cheap():
    """Of batches of one size, nobody knows what part is fixed: a lone request may cost as much."""
    assert taught([(32, 0.050)] * 20).expect(1) == pytest.approx(0.050)


def test_lone_requests_warn_of_full_batches():
    """And a batch may cost as much as its items alone."""
    assert taught([(1, 0.002)] * 20).expect(32) == pytest.approx(0.064)


def test_what_was_long_ago_is_forgotten():
    """A model that got slower is known to be slow after some batches."""
    costs = taught([(4, 0.001)] * 50 + [(4, 0.020)] * 20)
    assert costs.expect(4) == pytest.approx(0.020, rel=0.05)
