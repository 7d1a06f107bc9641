"""The ranker as a queue, against formulas that hold for its special cases."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.plan.fitting import BatchCost
from tools.plan.ranker import HEADROOM, Ranker


@pytest.mark.parametrize("load", [0.2, 0.5, 0.7])
def test_without_batching_it_is_m_d_1(load):
    """With batches of one, the mean latency is Pollaczek and Khinchine's: S + load * S / (2 (1 - load))."""
    service_s = 0.010
    found = Ranker(BatchCost(0.0, service_s), 1).at(load / service_s)
    assert found.mean_s == pytest.approx(service_s * (1 + load / (2 * (1 - load))), rel=0.05)
    assert found.batch == 1


@pytest.mark.parametrize("rps", [200, 1000, 3000])
def test_a_busy_slot_gathers_what_arrives_meanwhile(rps):
    """Where the slot is always busy, a batch holds what came while the one before it ran: n = rate * time(n)."""
    cost = BatchCost(0.0001, 0.050)
    found = Ranker(cost, 1024).at(rps)
    assert found.batch == pytest.approx(rps * 0.050 / (1 - rps * 0.0001), rel=0.05)
    # A request waits half a batch on average, a whole one at worst, and then runs.
    batch_s = cost.time_s(found.batch)
    assert found.mean_s == pytest.approx(1.5 * batch_s, rel=0.05)
    assert found.p99_s == pytest.approx(2 * batch_s, rel=0.08)


def test_a_lone_request_waits_for_nothing():
    """At a low rate latency is the time of a batch of one."""
    found = Ranker(BatchCost(0.001, 0.020), 32).at(0.1)
    assert found.mean_s == pytest.approx(0.021, rel=0.01)
    assert found.batch == pytest.approx(1, rel=0.01)
    assert found.large_batch == 1


def test_beyond_the_ceiling_there_is_no_end():
    """More than full batches can carry waits for ever."""
    ranker = Ranker(BatchCost(0.001, 0.020), 4)
    assert math.isinf(ranker.at(ranker.ceiling_rps).p99_s)


@settings(max_examples=15, deadline=None)
@given(
    per_item_s=st.floats(1e-6, 1e-2), fixed_s=st.floats(1e-4, 0.1), size=st.integers(1, 128), goal_s=st.floats(1e-3, 2)
)
def test_the_rate_keeps_what_it_promises(per_item_s, fixed_s, size, goal_s):
    """The rate for a latency keeps that latency and the headroom; it is 0 only where a lone request is too slow."""
    ranker = Ranker(BatchCost(per_item_s, fixed_s), size)
    rps = ranker.rate_within(goal_s)
    assert rps <= HEADROOM * ranker.ceiling_rps
    assert (rps == 0) == (per_item_s + fixed_s > goal_s)
    if rps:
        assert ranker.at(rps).p99_s <= goal_s


def test_more_time_allows_more_requests():
    """A laxer goal never means a lower rate."""
    ranker = Ranker(BatchCost(0.0005, 0.050), 32)
    rates = [ranker.rate_within(goal_s) for goal_s in (0.06, 0.1, 0.12, 0.15, 0.3)]
    assert rates == sorted(rates)
    assert rates[0] < rates[-1] == HEADROOM * ranker.ceiling_rps
