"""
The arm of a user: a function of the declaration and the user id alone, the same in every instance.

A hash of the layer and the user is a point from 0 to 1. It tells which slice of the layer the user belongs to. A hash of
the experiment's salt and the user tells the arm.
"""

from collections.abc import Sequence
from hashlib import blake2b
from itertools import accumulate

from msgspec import Struct

from recsys.contracts.wire import Exploration
from recsys.experiments.declaration import Arm, Experiment

SEPARATOR = ","


class Treatment(Struct, frozen=True):
    """
    The treatment of a user.

    Attributes:
        experiment: The names of the experiments of the user, with commas between them.
        arm: The names of the user's arms, in the same order.
        url: Address of the rank_items that ranks; "" for the default one.
        diversity: Diversity of requests that name none; None for the default.
        exploration: Draws a part of the lists at random; None for the default.
    """

    experiment: str
    arm: str
    url: str = ""
    diversity: float | None = None
    exploration: Exploration | None = None


def point(salt: str, user_id: str) -> float:
    """Return a number from 0 to below 1 that depends on *salt* and *user_id* alone, uniform over users."""
    # The length of the salt keeps "a" + "bc" and "ab" + "c" apart.
    digest = blake2b(f"{len(salt)}/{salt}{user_id}".encode(), digest_size=8, person=b"experiments").digest()
    return (int.from_bytes(digest, "big") >> 11) * 2.0**-53


def arm_of(experiment: Experiment, user_id: str) -> Arm | None:
    """Return the arm of the user; None if the user does not take part."""
    # All users take part in an experiment that fills its layer, so their place needs no hash.
    if experiment.share < 1:
        place = point(f"layer/{experiment.in_layer}", user_id)
        if not experiment.offset <= place < experiment.offset + experiment.share:
            return None
    where = point(f"arm/{experiment.hashed}", user_id)
    ends = accumulate(arm.share for arm in experiment.arms)
    return next((arm for arm, end in zip(experiment.arms, ends, strict=True) if where < end), experiment.arms[-1])


def treat(experiments: Sequence[Experiment], user_id: str) -> Treatment | None:
    """
    Return the treatment of the user; None if the user takes part in no experiment or *user_id* is empty.

    Experiments of different layers change different settings (`find_faults`), so their arms combine.
    """
    if not user_id:
        return None
    chosen = [(each.name, arm) for each in experiments if (arm := arm_of(each, user_id)) is not None]
    if not chosen:
        return None
    changing = [arm for _, arm in chosen if not arm.stopped]
    return Treatment(
        SEPARATOR.join(name for name, _ in chosen),
        SEPARATOR.join(arm.name for _, arm in chosen),
        next((arm.url for arm in changing if arm.url), ""),
        next((arm.diversity for arm in changing if arm.diversity is not None), None),
        next((arm.exploration for arm in changing if arm.exploration is not None), None),
    )
