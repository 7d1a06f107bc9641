"""
Check what the manifest of an artefact says, before the artefact may take the place of the serving one.

`gate` then compares the lists of both. These rules refuse what lists cannot show: data that end too early, users who
were erased, another declaration, and a single user who holds much of the data.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from offline.dominance import MOST_OF_ONE_USER
from offline.erasures import count_missed
from recrank.artefact import Artefact, Manifest
from recstore.erasures import Erasure
from recsys.declaration.types import Declaration

LEAST_OF_SERVING = 0.5
"""Least number of pairs of user and item that a model is trained on, as a share of the serving model's number."""

_2100_US = 4_102_444_800_000_000


class TrainingFacts(Struct, frozen=True):
    """
    The facts of a training by which an artefact is admitted.

    Attributes:
        until_us: Time of the newest interaction, microseconds since the epoch; 0 if the interactions have no time.
        ties: Number of pairs of user and item.
        largest_share: Largest share of the pairs, or of their weights, that one user has.
        erased_until_us: Time of the newest erasure that the training knew; -1 if it knew none.
    """

    until_us: Annotated[int, Meta(ge=0, le=_2100_US)]
    ties: Annotated[int, Meta(ge=0)]
    largest_share: Annotated[float, Meta(ge=0, le=1)]
    erased_until_us: int = -1


def find_fault(
    artefact: Artefact, *, serving: Manifest | None, declaration: Declaration, erasures: Sequence[Erasure]
) -> str:
    """
    Say why *artefact* may not take the place of the serving one; "" if no rule is against it.

    Args:
        artefact: The artefact to admit, already verified.
        serving: The manifest of the serving artefact; None without one.
        declaration: The declaration of the feature store.
        erasures: The erasures of the feature store.
    """
    try:
        facts = msgspec.convert(artefact.manifest.training, TrainingFacts)
    except msgspec.ValidationError as error:
        return f"its manifest does not hold the facts of its training: {error}; train it again"
    if difference := declaration.describe_difference(
        artefact.declaration, mine="the feature store", theirs="the model", features=True
    ):
        return f"it has another declaration: {difference}"
    if missed := count_missed(erasures, known_us=facts.erased_until_us):
        return f"it is old: users erased after its training read the data: {missed}"
    return next(_compare(facts, serving.training if serving else {}), "")


def _compare(facts: TrainingFacts, serving: Mapping[str, Any]) -> Iterator[str]:
    """Yield the faults of *facts*, beside the facts of the *serving* artefact."""
    until_us, ties = serving.get("until_us", 0), serving.get("ties", 0)
    # A retraining leaves out a user who held most of the serving model's data.
    enough = LEAST_OF_SERVING * ties * (1 - serving.get("largest_share", 0.0))
    if facts.until_us < until_us:
        yield f"it is old: its data end at {_moment(facts.until_us)}, those of the serving model at {_moment(until_us)}"
    if facts.ties < enough:
        yield f"it was trained on {facts.ties} pairs of user and item; the serving model was trained on {ties}"
    if facts.largest_share > MOST_OF_ONE_USER:
        yield (
            f"one user has {facts.largest_share:.0%} of the data that it was trained on; {MOST_OF_ONE_USER:.0%} is "
            "allowed"
        )


def _moment(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / 1_000_000, UTC).isoformat(timespec="seconds")
