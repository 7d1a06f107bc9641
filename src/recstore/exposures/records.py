"""
The records of an exposure log, and what joining them gives.

The garbage collector does not track items (`gc=False`): they hold no containers, and an event has hundreds of them.
"""

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

    @property
    def key(self) -> str:
        """The key within the exposures of the user."""
        return self.exposure_id

    def shown(self) -> list[ShownItem]:
        """Return the items, each with its position and its propensity."""
        return [ShownItem(each, place) if isinstance(each, str) else each for place, each in enumerate(self.items, 1)]


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

    @property
    def key(self) -> str:
        """The key within the actions of the user."""
        return self.event


Entry = Exposure | Action


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
