"""The ranker as a queue, compared with the formulas for its special cases."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.plan.curves import BatchCost
from tools.plan.ranker import HEADROOM, SimulatedRanker, _serve_singly, _unit_arrivals


@pytest.mark.parametrize("load", [0.2, 0.5, 0.7])
def test_a_batch_of_one_is_an_m_d_1_queue(load):
    """With batches of one the mean latency follows Pollaczek and Khinchine: S + load * S / (2 (1 - load))."""
    service_s = 0.010
    found = SimulatedRanker(BatchCost(0.0, service_s), 1).at(load / service_s)
    assert found.mean_s == pytest.approx(service_s * (1 + load / (2 * (1 - load))), rel=0.05)
    assert found.batch == 1


@pytest.mark.parametrize("rps", [200, 1000, 3000])
def test_a_busy_slot_collects_arriving_requests(rps):
    """When the slot is always busy, a batch holds the arrivals during the previous batch: n = rate * time(n)."""
    cost = BatchCost(0.0001, 0.050)
    found = SimulatedRanker(cost, 1024).at(rps)
    assert found.batch == pytest.approx(rps * 0.050 / (1 - rps * 0.0001), rel=0.05)
    # A request waits half a batch on average, a whole one at worst, and then runs.
    batch_s = cost.time_s(found.batch)
    assert found.mean_s == pytest.approx(1.5 * batch_s, rel=0.05)
    assert found.p99_s == pytest.approx(2 * batch_s, rel=0.08)


def test_a_single_request_does_not_wait():
    """At a low rate the latency is the time of a batch of one."""
    found = SimulatedRanker(BatchCost(0.001, 0.020), 32).at(0.1)
    assert found.mean_s == pytest.approx(0.021, rel=0.01)
    assert found.batch == pytest.approx(1, rel=0.01)
    assert found.large_batch == 1


def test_latency_is_infinite_at_the_ceiling():
    """At the ceiling and above, the predicted latency is infinite."""
    ranker = SimulatedRanker(BatchCost(0.001, 0.020), 4)
    assert math.isinf(ranker.at(ranker.ceiling_rps).p99_s)


@settings(max_examples=15, deadline=None)
@given(
    per_item_s=st.floats(1e-6, 1e-2), fixed_s=st.floats(1e-4, 0.1), size=st.integers(1, 128), goal_s=st.floats(1e-3, 2)
)
def test_the_rate_keeps_the_latency_goal(per_item_s, fixed_s, size, goal_s):
    """The rate for a latency goal keeps goal and headroom; it is 0 only if a single request exceeds the goal."""
    ranker = SimulatedRanker(BatchCost(per_item_s, fixed_s), size)
    rps = ranker.rate_within(goal_s)
    assert rps <= HEADROOM * ranker.ceiling_rps
    assert (rps == 0) == (per_item_s + fixed_s > goal_s)
    if rps:
        assert ranker.at(rps).p99_s <= goal_s


def test_a_looser_goal_allows_a_higher_rate():
    """A looser latency goal never lowers the rate."""
    ranker = SimulatedRanker(BatchCost(0.0005, 0.050), 32)
    rates = [ranker.rate_within(goal_s) for goal_s in (0.06, 0.1, 0.12, 0.15, 0.3)]
    assert rates == sorted(rates)
    assert rates[0] < rates[-1] == HEADROOM * ranker.ceiling_rps


@pytest.mark.parametrize("load", [0.05, 0.5, 0.79])
def test_requests_that_run_singly_wait_for_those_before(load):
    """With batches of one, each request starts when it arrives or when the request before it ends."""
    arrivals = [moment * 0.010 / load for moment in _unit_arrivals()[:2000]]
    free, expected = 0.0, []
    for arrival in arrivals:
        free = max(free, arrival) + 0.010
        expected.append(free - arrival)
    assert _serve_singly(arrivals, 0.010) == pytest.approx(expected, abs=1e-9)
