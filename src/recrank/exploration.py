"""
Exploration: in a share of the lists, one position gets an item drawn at random, and every propensity is known exactly.

The pool is the list that the user would get without exploration, and the `RESERVE` next items. An exploring list draws
one of its F positions (all equally likely) and one item of the pool, by a softmax of the scores. The two items swap
places. An item of the reserve replaces the item of the position. With share s and probability q_i of the draw of i,

    P(i at its own position)     = 1 - s/F (1 + (F - 2) q_i)
    P(i at the position of p)    = s/F (q_i + q_p)               i in the list
    P(i at the position of p)    = s/F q_i                       i in the reserve

The softmax is the first choice of a Plackett-Luce model. A whole list drawn by that model has no such closed form: the
probability of an item at a position is a sum over all orders of the items above it (docs/adr/0048-exploration.md).

The draw depends on the seed alone, so all instances give the same list for the same exposure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from recsys.contracts.wire import Exploration
from topk.item_table import F64

RESERVE = 10


@dataclass(frozen=True, slots=True)
class Explored:
    """
    A list after exploration.

    Attributes:
        places: For each position, the place of its item in the pool.
        propensities: For each position, the probability that it holds this item.
    """

    places: Sequence[int]
    propensities: Sequence[float]


def explore(scores: Sequence[float], exploration: Exploration, *, top_k: int, fixed: int, seed: str) -> Explored:
    """
    Draw a list from a pool.

    Args:
        scores: Scores of the pool, in the order of the list without exploration.
        exploration: Share of the lists that explore, and temperature of the softmax.
        top_k: Length of the list.
        fixed: Number of first positions that keep their items, because rules put them there.
        seed: Determines the draw, such as the id of the exposure.

    Cost: one exponential for each item of the pool.
    """
    length = min(top_k, len(scores))
    free = length - fixed
    if free < 1 or len(scores) - fixed < 2:
        return Explored(range(length), [1.0] * length)
    chances = softmax(scores[fixed:], temperature=exploration.temperature)
    each = exploration.share / free
    places = list(range(length))
    propensities = [*[1.0] * fixed, *(1.0 - each * (1.0 + (free - 2) * chances[:free])).tolist()]
    explores, position, item = draw(seed)
    if explores < exploration.share:
        here = int(position * free)
        there = min(int(np.searchsorted(np.cumsum(chances), item, side="right")), chances.size - 1)
        if here != there:
            chance = each * float(chances[there] + (chances[here] if there < free else 0.0))
            for place, other in ((here, there), (there, here)):
                if place < free:
                    places[fixed + place], propensities[fixed + place] = fixed + other, chance
    return Explored(places, propensities)


def softmax(scores: Sequence[float], *, temperature: float) -> F64:
    """Return the probability of each item; the spread of *scores* counts as 1, so that the model's units do not matter."""
    values = np.array(scores, np.float64)
    spread = float(values.max() - values.min()) or 1.0
    weights = np.exp((values - values.max()) / (spread * temperature))
    return np.asarray(weights / weights.sum(), np.float64)


def draw(seed: str) -> tuple[float, float, float]:
    """Return three independent numbers from 0 to below 1 that depend on *seed* alone."""
    digest = blake2b(seed.encode(), digest_size=24, person=b"exploration").digest()
    first, second, third = (int.from_bytes(digest[start : start + 8], "big") >> 11 for start in (0, 8, 16))
    return first * 2.0**-53, second * 2.0**-53, third * 2.0**-53
