"""User ids for the load: users of the demo data, drawn by popularity, and unknown users."""

import itertools
import random
from bisect import bisect_left


class Population:
    """
    Draws user ids.

    Args:
        size: Returning users are `user_1` to `user_SIZE`.
        exponent: The user of rank r calls in proportion to r ** -exponent; with 0, all users call equally often.
        rng: Draws the ids.
        run: Part of the ids of unknown users, so that they differ between runs.

    Ranks are shuffled over the users, so popularity does not follow the order of the ids.
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
        """Return the id of a user that the pipeline has not seen before."""
        return f"new_{self._run}_{next(self._newcomers)}"
