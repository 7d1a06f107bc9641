"""User ids for the load: known users, drawn by popularity, and unknown users."""

import itertools
import random
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path


def read_lines(path: Path) -> list[str]:
    """
    Return the lines of the file at *path* that are not empty.

    Ids and JSON may contain spaces, and characters at which `splitlines` splits.

    Raises:
        OSError, UnicodeDecodeError: The file cannot be read, or is not UTF-8.
    """
    return [line for each in path.read_text("utf-8-sig").split("\n") if (line := each.rstrip("\r"))]


def known_users(path: Path | None, *, most: int) -> list[str]:
    """
    Return the ids in the file at *path*, one a line, or *most* random ones of more; without a file user_1 to user_MOST.

    Raises:
        OSError, ValueError: As of `read_lines`, or the file has no ids.
    """
    if path is None:
        return [f"user_{number}" for number in range(1, most + 1)]
    if not (ids := read_lines(path)):
        raise ValueError(f"{path}: has no user ids; write one a line")
    return ids if len(ids) <= most else random.Random(0).sample(ids, most)


class Population:
    """
    Draws user ids.

    Args:
        ids: Returning users.
        exponent: The user of rank r calls in proportion to r ** -exponent; with 0, all users call equally often.
        rng: Draws the ids.
        run: Part of the ids of unknown users, so that they differ between runs.

    Ranks are shuffled over the users, so popularity does not follow the order of the ids.
    """

    def __init__(self, ids: Sequence[str], *, exponent: float, rng: random.Random, run: str) -> None:
        self.ids = ids
        self._ranked = rng.sample(ids, len(ids))
        self._cumulative = list(itertools.accumulate(rank**-exponent for rank in range(1, len(ids) + 1)))
        self._rng = rng
        self._run = run
        self._newcomers = itertools.count(1)

    def returning(self) -> str:
        """Draw a user by popularity."""
        return self._ranked[bisect_left(self._cumulative, self._rng.random() * self._cumulative[-1])]

    def newcomer(self) -> str:
        """Return the id of a user that the pipeline has not seen before."""
        return f"new_{self._run}_{next(self._newcomers)}"
