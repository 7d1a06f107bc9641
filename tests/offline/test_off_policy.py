"""Off-policy estimates are compared with the truth of a simulated world, and with sums written out by hand."""

import math
from collections import defaultdict

import numpy as np
import pytest

from offline.evaluation.off_policy import OffPolicy, ShownLists, evaluate_lists, mean_interval
from recsys.contracts.wire import Exploration
from tests.offline.simulated_users import Draws, World, act

ALWAYS = Exploration(share=1.0, temperature=1.0)


def by_name(found: OffPolicy) -> dict[str, float]:
    return {each.name: each.value.value for each in found.estimates}


def test_the_estimates_of_a_small_log():
    """IPS adds weighted rewards of matching items; SNIPS divides by the weights of each position."""
    shown = ShownLists(
        users=np.array([0, 1, 2]),
        items=np.array([[0, 1], [1, 0], [0, -1]]),
        propensities=np.array([[0.5, 0.25], [0.5, 0.5], [0.5, 1.0]]),
        rewards=np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]),
    )
    candidate = np.array([[0, 1], [0, 0], [0, -1]])
    found = evaluate_lists(shown, candidate)
    # Weights: [2, 4], [0, 2], [2, -].
    assert by_name(found)["logged"] == pytest.approx(3 / 3)
    assert by_name(found)["ips"] == pytest.approx((2 + 2) / 3)
    assert by_name(found)["snips"] == pytest.approx(2 / 4 + 2 / 3 * (2 / 6))
    assert found.support == pytest.approx(10 / 5)
    assert found.effective == pytest.approx(10**2 / (4 + 16 + 4 + 4))


def test_the_logged_lists_themselves_are_estimated_exactly():
    """Without exploration, the estimates of the lists that were shown are their actions."""
    rng = np.random.default_rng(0)
    items = np.argsort(rng.random((50, 9)), axis=1)[:, :4]
    shown = ShownLists(np.arange(50) // 2, items, np.ones((50, 4)), (rng.random((50, 4)) < 0.3).astype(np.float64))
    found = evaluate_lists(shown, items)
    assert [each.value.value for each in found.estimates] == pytest.approx([shown.rewards.sum(axis=1).mean()] * 4)
    assert [each.lift.value for each in found.estimates] == pytest.approx([0.0] * 4, abs=1e-12)
    assert found.support == 1.0


def test_a_candidate_that_was_never_shown_has_no_support():
    """Items that the log cannot hold give a support of 0, and estimates that rest on the model alone."""
    shown = ShownLists(np.arange(4), np.array([[0], [1], [0], [1]]), np.ones((4, 1)), np.ones((4, 1)))
    found = evaluate_lists(shown, np.full((4, 1), 7))
    assert (found.support, by_name(found)["ips"], by_name(found)["snips"]) == (0.0, 0.0, 0.0)
    assert by_name(found)["dr"] == pytest.approx(1.0)


def test_one_user_is_not_enough():
    """The spread of a single user says nothing about others, so the log is refused."""
    shown = ShownLists(np.zeros(3, np.int64), np.zeros((3, 1), np.int64), np.ones((3, 1)), np.ones((3, 1)))
    with pytest.raises(ValueError, match="two users"):
        evaluate_lists(shown, shown.items)


def test_lists_of_one_user_count_as_one_observation():
    """Repeating every list widens no interval and narrows none."""
    rng = np.random.default_rng(1)
    values, users = rng.random(40), np.arange(40)
    once, thrice = mean_interval(values, users), mean_interval(np.repeat(values, 3), np.repeat(users, 3))
    assert (thrice.value, thrice.low, thrice.high) == pytest.approx((once.value, once.low, once.high))
    assert once.high - once.value == pytest.approx(1.959964 * values.std(ddof=1) / math.sqrt(40))


@pytest.fixture(scope="module")
def world() -> World:
    return World.make(seed=2)


def test_intervals_cover_the_truth(world):
    """
    The 95 % intervals of each estimator cover the true value of another model in 93 to 97 % of 1,000 logs, although
    users with several lists differ in their activity.
    """
    draws, lists = Draws.of(world, ALWAYS), world.other_lists(seed=3)
    truth, rng = world.value(lists), np.random.default_rng(4)
    covered: defaultdict[str, int] = defaultdict(int)
    values: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(1000):
        shown, kinds = act(world, draws, rng, users=1000, each=3, spread=0.5)
        for each in evaluate_lists(shown, lists[kinds]).estimates:
            covered[each.name] += each.value.low <= truth <= each.value.high
            values[each.name].append(each.value.value)
    for name in ("ips", "snips", "dr"):
        assert 930 <= covered[name] <= 970, (name, covered[name])
        spread = np.std(values[name])
        assert abs(np.mean(values[name]) - truth) < 4 * spread / math.sqrt(1000)
    assert np.std(values["dr"]) < np.std(values["ips"])
    # The lists that were shown have another value, so the estimators did not just repeat it.
    assert abs(np.mean(values["logged"]) - truth) > 10 * np.std(values["logged"]) / math.sqrt(1000)


def ndcg(world: World, draws: Draws) -> float:
    """Return the expected NDCG of the lists that are drawn, by the planted tastes."""
    discount = 1 / np.log2(np.arange(2, world.attention.size + 2))
    best = -np.sort(-world.tastes, axis=1)[:, : world.attention.size] @ discount
    gains = world.tastes[np.arange(len(world.pools))[:, None, None], draws.items] @ discount / best[:, None]
    chances = np.diff(draws.chances, axis=1, prepend=0.0)
    return float((gains * chances).sum(axis=1).mean())


@pytest.mark.parametrize("length", [3, 5, 10])
def test_exploration_costs_at_most_three_percent_of_ndcg(length):
    """At its default, exploration lowers the expected NDCG by at most 3 %; the expectation is exact."""
    for seed in range(5):
        world = World.make(seed=seed, length=length)
        plain = ndcg(world, Draws.of(world, Exploration(share=1e-9)))
        explored = ndcg(world, Draws.of(world, Exploration()))
        assert 0 < 1 - explored / plain <= 0.03
