"""
Users with planted tastes and position bias, who see lists of a model and act on them.

Each kind of users has a taste for each item. Users differ in their activity, whose mean is 1. A user acts on an item with
probability activity x taste x attention to the position.
"""

from dataclasses import dataclass

import numpy as np

from offline.evaluation.off_policy import ShownLists
from recrank.exploration import RESERVE
from recsys.contracts.wire import Exploration
from tests.ranking.drawn_lists import enumerate_lists
from topk.item_table import F64, I64


@dataclass(frozen=True)
class World:
    """
    The planted truth, and what a model believes.

    Attributes:
        tastes: (T, I) tastes of each kind of users.
        attention: (K,) attention to each position.
        pools: (T, K + RESERVE) items of the model's pool for each kind, best first.
        scores: Scores of the pools.
    """

    tastes: F64
    attention: F64
    pools: I64
    scores: F64

    @classmethod
    def make(cls, *, seed: int, kinds: int = 6, items: int = 40, length: int = 3, noise: float = 0.1) -> "World":
        """Return a world whose model knows the tastes up to *noise*."""
        rng = np.random.default_rng(seed)
        tastes = rng.beta(1.5, 3.0, (kinds, items)) * 0.6
        believed = tastes + rng.normal(0, noise, tastes.shape)
        pools = np.argsort(-believed, axis=1)[:, : length + RESERVE]
        attention = np.arange(1, length + 1, dtype=np.float64) ** -0.7
        return cls(tastes, attention, pools, np.take_along_axis(believed, pools, axis=1))

    def other_lists(self, *, seed: int, noise: float = 0.05) -> I64:
        """Return the lists (T, K) of another model, which has other beliefs about the same pools."""
        rng = np.random.default_rng(seed)
        believed = np.take_along_axis(self.tastes, self.pools, axis=1) + rng.normal(0, noise, self.pools.shape)
        best = np.argsort(-believed, axis=1)[:, : self.attention.size]
        return np.take_along_axis(self.pools, best, axis=1)

    def value(self, lists: I64) -> float:
        """Return the true number of actions per list if each kind gets its row of *lists*."""
        return float((np.take_along_axis(self.tastes, lists, axis=1) * self.attention).sum(axis=1).mean())


@dataclass(frozen=True)
class Draws:
    """
    The lists that exploration draws for each kind of users: D lists.

    Attributes:
        chances: (T, D) cumulated probabilities of the lists.
        items: (T, D, K).
        propensities: (T, D, K), as the served event holds them.
    """

    chances: F64
    items: I64
    propensities: F64

    @classmethod
    def of(cls, world: World, exploration: Exploration) -> "Draws":
        """Return all lists that the code that serves can draw."""
        lists = [enumerate_lists(row, exploration, top_k=world.attention.size) for row in world.scores.tolist()]
        items = [[pool[list(each.places)] for _, each in own] for pool, own in zip(world.pools, lists, strict=True)]
        return cls(
            np.cumsum([[chance for chance, _ in own] for own in lists], axis=1),
            np.array(items, np.int64),
            np.array([[each.propensities for _, each in own] for own in lists]),
        )


def act(
    world: World, draws: Draws, rng: np.random.Generator, *, users: int, each: int, spread: float
) -> tuple[ShownLists, I64]:
    """
    Return the log of *users* who see *each* lists, and the kind of the user of each list.

    *spread* is the standard deviation of their activity.
    """
    kinds = np.repeat(rng.integers(len(world.pools), size=users), each)
    number = np.minimum((draws.chances[kinds] < rng.random(kinds.size)[:, None]).sum(axis=1), draws.items.shape[1] - 1)
    items = draws.items[kinds, number]
    activity = np.repeat(1 + spread * rng.choice([-1.0, 1.0], users), each)
    chances = activity[:, None] * world.tastes[kinds[:, None], items] * world.attention
    rewards = (rng.random(chances.shape) < chances).astype(np.float64)
    return ShownLists(np.repeat(np.arange(users), each), items, draws.propensities[kinds, number], rewards), kinds
