"""Who calls: users of the demo data drawn by popularity, and users nobody has seen."""

import itertools
import random
from bisect import bisect_left


class Population:
    """
    Draws user ids.

    Args:
        size: Returning users are `user_1` to `user_SIZE`.
        exponent: User of rank r calls in proportion to r ** -exponent; 0 makes all alike.
        rng: The source of chance.
        run: Tells the newcomers of this run from those of others.

    Which user has which rank is shuffled, so popularity is not the order of the ids.
    """

    def __init__(self, *, size: int, exponent: float, rng: random.Random, run: str) -> None:
        self.ids = [f"user_{number}" for number in range(1, size + 1)]
        self._ranked = rng.sample(self.ids, size)
        self._cumulative = list(itertools.accumulate(rank**-exponent for rank in range(1, size + 1)))
        self._rng = rng
        self._run = run
        self._newcomers = itertools.count(1)

    def returning(self) -> str:
        """Draw a user by popularity."""
        return self._ranked[bisect_left(self._cumulative, self._rng.random() * self._cumulative[-1])]

    def newcomer(self) -> str:
        """Return a user that was never there before."""
        return f"new_{self._run}_{next(self._newcomers)}"
