"""All lists that exploration can draw from a pool, made by the code that serves, each with its probability."""

from collections.abc import Sequence
from itertools import product
from unittest.mock import patch

import numpy as np

from recrank import exploration as exploring
from recrank.exploration import Explored, explore, softmax
from recsys.contracts.wire import Exploration


def enumerate_lists(
    scores: Sequence[float], exploration: Exploration, *, top_k: int, fixed: int = 0
) -> list[tuple[float, Explored]]:
    """Return every list with its probability by the definition of the draw: a position, and an item by the softmax."""
    free = min(top_k, len(scores)) - fixed
    chances = softmax(scores[fixed:], temperature=exploration.temperature)
    middles = np.cumsum(chances) - chances / 2

    def explored(explores: float, position: int, item: int) -> Explored:
        with patch.object(exploring, "draw", lambda _: (explores, (position + 0.5) / free, middles[item])):
            return explore(scores, exploration, top_k=top_k, fixed=fixed, seed="")

    rest = 1.0 - exploration.share
    plain = [(rest, explored(1.0, 0, 0))] if rest else []
    return plain + [
        (exploration.share / free * float(chances[item]), explored(0.0, position, item))
        for position, item in product(range(free), range(chances.size))
    ]
