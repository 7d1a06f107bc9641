"""
The records of an exposure log, and what joining them gives.

The garbage collector does not track items (`gc=False`): they hold no containers, and an event has hundreds of them.
"""

from collections.abc import Callable, Collection, Iterator
from itertools import compress
from operator import itemgetter
from typing import Any

from msgspec import Struct

from recsys.records import Interaction


class ShownItem(Struct, frozen=True, array_like=True, gc=False):
    """
    One item of an answer.

    Attributes:
        item_id: The item.
        position: The position in the answer, from 1.
        propensity: The probability that the policy shows the item at this position.
    """

    item_id: str
    position: int
    propensity: float = 1.0


class Exposure(Struct, frozen=True, array_like=True):
    """
    One answer of recommend.

    Attributes:
        exposure_id: Identifies the answer among those of the user.
        user_id: The user.
        time_us: Time of the answer, microseconds since the epoch.
        items: The items of the answer. An id alone stands for an item at its place in the list that nothing drew.
        model: Name of the artefact that ranked; None for the popular list.
        version: Version of that artefact.
        experiment: The experiment that the answer belongs to, if any.
        arm: The arm of the experiment.
        took_us: Time that the answer took, microseconds; None if the event does not tell.
        failed: Whether a hop or the arm failed, so that the answer is degraded or the default's.
    """

    exposure_id: str
    user_id: str
    time_us: int
    items: tuple[str | ShownItem, ...]
    model: str | None = None
    version: str | None = None
    experiment: str | None = None
    arm: str | None = None
    took_us: int | None = None
    failed: bool = False

    def shown(self) -> list[ShownItem]:
        """Return the items, each with its position and its propensity."""
        return [ShownItem(each, place) if isinstance(each, str) else each for place, each in enumerate(self.items, 1)]


class Origin(Struct, frozen=True, array_like=True):
    """How answers were made; the attributes are those of `Exposure`."""

    model: str | None = None
    version: str | None = None
    experiment: str | None = None
    arm: str | None = None
    failed: bool = False


class ExposureGroup(Struct, frozen=True):
    """
    The answers that one event reports, column by column; they may be of different users.

    A column of many answers is decoded and kept in a tenth of the time that as many records take.

    Attributes:
        key: Identifies the event; the log keeps one group with this key.
        user_ids: The user of each answer.
        exposure_ids: The id of each answer.
        times_us: As `time_us` of `Exposure`.
        items: As there.
        took_us: As there.
        origins: The different origins.
        origin: The place in *origins* of each answer.
    """

    key: str
    user_ids: list[str]
    exposure_ids: list[str]
    times_us: list[int]
    items: list[tuple[str | ShownItem, ...]]
    took_us: list[int | None]
    origins: list[Origin]
    origin: list[int]

    @classmethod
    def of(cls, exposure: Exposure) -> "ExposureGroup":
        """Return *exposure* as a group."""
        origin = Origin(exposure.model, exposure.version, exposure.experiment, exposure.arm, exposure.failed)
        return cls.alone(
            exposure.user_id,
            exposure.exposure_id,
            time_us=exposure.time_us,
            items=exposure.items,
            took_us=exposure.took_us,
            origin=origin,
        )

    @classmethod
    def alone(
        cls,
        user_id: str,
        exposure_id: str,
        *,
        time_us: int,
        items: tuple[str | ShownItem, ...],
        took_us: int | None,
        origin: Origin,
    ) -> "ExposureGroup":
        """Return one answer as a group, whose key is that of the exposure of the user."""
        # The length keeps "a/b" + "c" and "a" + "b/c" apart.
        key = f"{len(user_id)}/{user_id}/{exposure_id}"
        return cls(key, [user_id], [exposure_id], [time_us], [items], [took_us], [origin], [0])

    def exposures(self) -> Iterator[Exposure]:
        """Yield the answers."""
        columns = (self.exposure_ids, self.user_ids, self.times_us, self.items, self.took_us, self.origin)
        for exposure_id, user_id, time_us, items, took_us, place in zip(*columns, strict=True):
            made = self.origins[place]
            yield Exposure(
                exposure_id,
                user_id,
                time_us,
                items,
                made.model,
                made.version,
                made.experiment,
                made.arm,
                took_us,
                made.failed,
            )

    def without(self, places: Collection[int]) -> "ExposureGroup":
        """Return the group without the answers at *places*."""
        stays = [place not in places for place in range(len(self.user_ids))]
        return self._with(self.key, lambda column: list(compress(column, stays)))

    def parts(self, most: int) -> Iterator["ExposureGroup"]:
        """Yield groups of at most *most* answers; the first one has the key of this group."""
        if len(self.user_ids) <= most:
            yield self
            return
        for start in range(0, len(self.user_ids), most):
            part = slice(start, start + most)
            yield self._with(f"{self.key}/{start}" if start else self.key, itemgetter(part))

    def _with(self, key: str, some: Callable[[list[Any]], list[Any]]) -> "ExposureGroup":
        """Return a group with *some* of the answers, chosen alike in each column."""
        return ExposureGroup(
            key,
            some(self.user_ids),
            some(self.exposure_ids),
            some(self.times_us),
            some(self.items),
            some(self.took_us),
            self.origins,
            some(self.origin),
        )


class Action(Struct, frozen=True, array_like=True):
    """
    An interaction that may be the outcome of an exposure.

    Attributes:
        event: Digest of the event, hexadecimal.
        user_id: The user who acted.
        time_us: Time of the action, microseconds since the epoch.
        kind: Name of the kind, such as `click`.
        item_id: The item acted on.
        exposure_id: The exposure that the event names; "" if it names none.
    """

    event: str
    user_id: str
    time_us: int
    kind: str
    item_id: str
    exposure_id: str = ""


Entry = Exposure | ExposureGroup | Action


def action_of(interaction: Interaction) -> Action | None:
    """Return the action of *interaction*; None if it concerns no item."""
    if interaction.item_id is None:
        return None
    return Action(
        interaction.digest().hex(),
        interaction.user_id,
        interaction.time_us,
        interaction.kind,
        interaction.item_id,
        interaction.exposure_id,
    )


class ItemOutcome(Struct, frozen=True):
    """
    One item of an exposure, and its outcomes.

    Attributes:
        item_id: The item.
        position: The position in the answer, from 1.
        propensity: The probability that the policy shows the item at this position.
        outcomes: The kinds of the user's actions on the item that belong to the exposure, oldest first.
    """

    item_id: str
    position: int
    propensity: float
    outcomes: tuple[str, ...] = ()


class ExposureOutcome(Struct, frozen=True):
    """An exposure with the outcomes of its items; the other attributes are those of `Exposure`."""

    exposure_id: str
    user_id: str
    time_us: int
    model: str | None
    version: str | None
    experiment: str | None
    arm: str | None
    items: tuple[ItemOutcome, ...]
    took_us: int | None = None
    failed: bool = False
