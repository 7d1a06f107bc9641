"""
The arm of a user: a function of the declaration and the user id alone, the same in every instance.

A hash of the layer and the user is a point from 0 to 1. It tells which slice of the layer the user belongs to. A hash of
the experiment's salt and the user tells the arm.
"""

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import accumulate
from math import ceil

from msgspec import Struct

from recsys.contracts.wire import Exploration
from recsys.experiments.declaration import Arm, Experiment

SEPARATOR = ","
_KEPT = 1024
# Points are the numbers from 0 to 1 that a float holds exactly. The last bits of a hash do not count.
_POINTS, _UNUSED_BITS = 2**53, 11


class Treatment(Struct, frozen=True):
    """
    The treatment of a user.

    Attributes:
        experiment: The names of the experiments of the user, with commas between them.
        arm: The names of the user's arms, in the same order.
        url: Address of the rank_items that ranks; "" for the default one.
        diversity: Diversity of requests that name none; None for the default.
        exploration: Draws a part of the lists at random; None for the default.
        ranker: The names of the experiment and the arm that chose the address; empty for the default one.
    """

    experiment: str
    arm: str
    url: str = ""
    diversity: float | None = None
    exploration: Exploration | None = None
    ranker: tuple[str, str] = ("", "")


class Assignment:
    """
    Assigns users to the arms of *experiments*.

    Cost: a hash for each experiment, and another one if the experiment has a slice of its layer.
    """

    def __init__(self, experiments: Sequence[Experiment]) -> None:
        self._experiments = experiments
        self._places = [_Split(each).place for each in experiments]
        # Many layers have more combinations of arms than memory holds.
        self._combined = lru_cache(_KEPT)(self._combine)

    def treat(self, user_id: str) -> Treatment | None:
        """Return the treatment of the user; None if the user takes part in no experiment or *user_id* is empty."""
        if not user_id:
            return None
        return self._combined(tuple([place(user_id) for place in self._places]))

    def _combine(self, places: tuple[int | None, ...]) -> Treatment | None:
        """Return the treatment of users with the arms at *places*; None stands for an experiment without the user."""
        # Experiments of different layers change different settings (`find_faults`), so their arms combine.
        pairs = zip(self._experiments, places, strict=True)
        chosen = [(each.name, each.arms[place]) for each, place in pairs if place is not None]
        if not chosen:
            return None
        changing = [(name, arm) for name, arm in chosen if not arm.stopped]
        name, ranker = next(((name, arm) for name, arm in changing if arm.url), ("", None))
        return Treatment(
            SEPARATOR.join(name for name, _ in chosen),
            SEPARATOR.join(arm.name for _, arm in chosen),
            ranker.url if ranker else "",
            next((arm.diversity for _, arm in changing if arm.diversity is not None), None),
            next((arm.exploration for _, arm in changing if arm.exploration is not None), None),
            (name, ranker.name) if ranker else ("", ""),
        )


class _Split:
    """
    The slice of an experiment in its layer, and the arms' parts of the slice.

    It compares hashes with the first hash of each part, both as bytes, so that no hash needs to become a number.
    """

    def __init__(self, experiment: Experiment) -> None:
        # All users take part in an experiment that fills its layer, so their place needs no hash.
        self._layer = _salted(f"layer/{experiment.in_layer}") if experiment.share < 1 else None
        self._begin, self._end = _first(experiment.offset), _first(experiment.offset + experiment.share)
        self._arm = _salted(f"arm/{experiment.hashed}")
        # The sum of the shares may be a little below 1. The last arm gets the users beyond it.
        self._ends = [_first(end) for end in accumulate(arm.share for arm in experiment.arms[:-1])]

    def place(self, user_id: str) -> int | None:
        """Return the place of the user's arm in the experiment; None if the user does not take part."""
        if self._layer and not self._begin <= _hash(self._layer, user_id) < self._end:
            return None
        return bisect_right(self._ends, _hash(self._arm, user_id))


def point(salt: str, user_id: str) -> float:
    """Return a number from 0 to below 1 that depends on *salt* and *user_id* alone, uniform over users."""
    return (int.from_bytes(_hash(_salted(salt), user_id), "big") >> _UNUSED_BITS) / _POINTS


def arm_of(experiment: Experiment, user_id: str) -> Arm | None:
    """Return the arm of the user; None if the user does not take part."""
    place = _Split(experiment).place(user_id)
    return None if place is None else experiment.arms[place]


def _salted(salt: str) -> blake2b:
    """Return the hash of *salt*. Hashing the salt once saves half of the time."""
    # The length of the salt keeps "a" + "bc" and "ab" + "c" apart.
    return blake2b(f"{len(salt)}/{salt}".encode(), digest_size=8, person=b"experiments")


def _hash(salted: blake2b, user_id: str) -> bytes:
    hashed = salted.copy()
    hashed.update(user_id.encode())
    return hashed.digest()


def _first(end: float) -> bytes:
    """Return the least hash whose point is at least *end*. If *end* is 1 or more, return bytes greater than all hashes."""
    return (ceil(end * _POINTS) << _UNUSED_BITS).to_bytes(8, "big") if end < 1 else b"\xff" * 9
