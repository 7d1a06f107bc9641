"""
The events of the pipeline: their types and data.

    interaction.v1                a user did something              -> extract_features counts it
    user.updated.v1               attributes of a user have changed -> extract_features stores them
    user.erased.v1                a user's data are to be removed   -> extract_features removes them
    item.upserted.v1              an item is new or has changed     -> extract_features tells all rank_items
    item.removed.v1               an item is no longer sold         -> the same
    recommendation.requested.v1   a client wants recommendations    -> recommend (in a Sequence: extract_features)
    features.extracted.v1         a user's features, in a Sequence  -> rank_items
    features.updated.v1           a user's features have changed       reply of extract_features, if configured
    recommendation.completed.v1   the recommendations                  reply of recommend and rank_items
    recommendation.served.v1      the recommendations shown            sent by recommend to K_SINK; extract_features keeps it
    recommendation.served.group.v1   the same for several answers      the same, if SERVED_EVENTS_GROUP is above 1
"""

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from chassis.wire.decoder import Decoder
from recsys.contracts.wire import (
    DEFAULT_TOP_K,
    MAX_ID_LENGTH,
    MAX_TOP_K,
    MAX_VALUES,
    Exclude,
    Features,
    History,
    ItemId,
    Model,
    Moment,
    Name,
    TopK,
    UserAttributes,
    UserId,
)

INTERACTION = "dev.recsys.interaction.v1"
USER_UPDATED = "dev.recsys.user.updated.v1"
ERASED = "dev.recsys.user.erased.v1"
ITEM_UPSERTED = "dev.recsys.item.upserted.v1"
ITEM_REMOVED = "dev.recsys.item.removed.v1"
REQUESTED = "dev.recsys.recommendation.requested.v1"
EXTRACTED = "dev.recsys.features.extracted.v1"
UPDATED = "dev.recsys.features.updated.v1"
COMPLETED = "dev.recsys.recommendation.completed.v1"
SERVED = "dev.recsys.recommendation.served.v1"
SERVED_GROUP = "dev.recsys.recommendation.served.group.v1"
# The most answers that an event describes, and the most of a part of them.
MAX_GROUP, MAX_PART = 2048, 128

_LONGEST_SESSION_S = 7 * 86_400.0
# Estimates divide by it.
_LEAST_PROPENSITY = 1e-12
_LONGEST_ANSWER_US = 3_600_000_000
# The last microsecond before 2100.
_LATEST_US = 4_102_444_799_999_999


ExposureId = Annotated[str, Meta(min_length=1, max_length=64)]
ShortText = Annotated[str, Meta(max_length=64)]
Degraded = Annotated[tuple[ShortText, ...], Meta(max_length=16)]
Propensity = Annotated[float, Meta(ge=_LEAST_PROPENSITY, le=1)]
TookUs = Annotated[int, Meta(ge=0, le=_LONGEST_ANSWER_US)]


class InteractionData(Struct, frozen=True, forbid_unknown_fields=True):
    """
    `interaction.v1`.

    Attributes:
        user_id: The user.
        kind: The action: a kind that the pipeline declares, or `session_end`.
        item_id: The item; required except for the end of a session.
        duration_s: Length of the ended session, seconds.
        time: Time of the action, RFC 3339; by default the time of the event.
        exposure_id: The exposure that led to the action. Without it, the action belongs to the newest one of the item.
    """

    user_id: UserId
    kind: Annotated[str, Meta(min_length=1, max_length=64)]
    item_id: ItemId | None = None
    duration_s: Annotated[float, Meta(ge=0, le=_LONGEST_SESSION_S)] | None = None
    time: Annotated[str, Meta(max_length=64)] | None = None
    exposure_id: ExposureId | None = None


class ErasedData(Struct, frozen=True, forbid_unknown_fields=True):
    """`user.erased.v1`: the user. The time of the event is the time of the erasure."""

    user_id: UserId


Value = Annotated[str, Meta(min_length=1, max_length=MAX_ID_LENGTH)]


class AttributeValues(Struct, frozen=True, forbid_unknown_fields=True):
    """The values of one attribute of an item or of a user; none removes the attribute."""

    attribute: Name
    values: Annotated[list[Value], Meta(max_length=MAX_VALUES)]


class UserUpdatedData(Struct, frozen=True, forbid_unknown_fields=True):
    """
    `user.updated.v1`. The time of the event decides which of two values of an attribute is newer.

    Attributes:
        user_id: The user.
        attributes: The new values of each attribute; the user's other attributes stay.
    """

    user_id: UserId
    attributes: Annotated[list[AttributeValues], Meta(min_length=1, max_length=64)]


class ItemUpsertedData(Struct, frozen=True, forbid_unknown_fields=True):
    """
    `item.upserted.v1`; it has the item and at least one other field.

    Attributes:
        item_id: The item.
        title: The title. Title and attributes are one description: if one of them is sent, the other one is replaced
            too.
        attributes: The values of each attribute.
        available: Whether users may get the item; if absent, that does not change.
    """

    item_id: ItemId
    title: Annotated[str, Meta(max_length=1024)] | None = None
    attributes: Annotated[list[AttributeValues], Meta(max_length=64)] | None = None
    available: bool | None = None


class ItemRemovedData(Struct, frozen=True, forbid_unknown_fields=True):
    """`item.removed.v1`: the item."""

    item_id: ItemId


class RequestedData(Struct, frozen=True, forbid_unknown_fields=True):
    """`recommendation.requested.v1`: the body of a request to recommend."""

    user_id: UserId
    top_k: TopK = DEFAULT_TOP_K
    exclude: Exclude = []


class ExtractedData(Struct, frozen=True):
    """`features.extracted.v1`: the input of rank_items, and the user."""

    user_id: UserId
    features: Features
    history: History
    top_k: TopK = DEFAULT_TOP_K
    exclude: Exclude = []
    avoided: History | UnsetType = UNSET
    as_of: Moment | UnsetType = UNSET
    user_attributes: UserAttributes | UnsetType = UNSET


class ServedItem(Struct, frozen=True, gc=False):
    """
    An item of a served answer.

    Attributes:
        item_id: The item.
        position: The position in the answer, from 1; by default the place in the list.
        propensity: The probability that the policy shows the item at this position.
    """

    item_id: ItemId
    position: Annotated[int, Meta(ge=1, le=MAX_TOP_K)] | None = None
    propensity: Propensity = 1.0


class ServedData(Struct, frozen=True):
    """
    `recommendation.served.v1`; unknown fields are ignored.

    Attributes:
        exposure_id: Identifies the answer.
        user_id: The user.
        items: The items, best first. An id alone stands for an item at its place in the list that nothing drew.
        model: The artefact that ranked; null for the popular list.
        time: Time of the answer, RFC 3339; by default the time of the event.
        experiment: The experiment that the answer belongs to.
        arm: The arm of the experiment.
        degraded: The hops that failed.
        arm_failed: Whether the arm could not rank, so that the default did.
        took_us: Time that the answer took, microseconds.
    """

    exposure_id: ExposureId
    user_id: UserId
    items: Annotated[list[ServedItem | ItemId], Meta(max_length=MAX_TOP_K)]
    model: Model | None = None
    time: ShortText | None = None
    experiment: ShortText | None = None
    arm: ShortText | None = None
    degraded: Degraded = ()
    arm_failed: bool = False
    took_us: TookUs | None = None


class Origin(Struct, frozen=True, omit_defaults=True):
    """
    How answers of a group were made.

    Attributes:
        model: The artefact that ranked; absent for the popular list.
        experiment: The experiment that the answers belong to.
        arm: The arm of the experiment.
        degraded: The hops that failed.
        arm_failed: Whether the arm could not rank, so that the default did.
    """

    model: Model | None = None
    experiment: ShortText | None = None
    arm: ShortText | None = None
    degraded: Degraded = ()
    arm_failed: bool = False


class ServedPart(Struct, frozen=True, omit_defaults=True):
    """
    Several answers, column by column, because that takes a tenth of the time.

    Each column but *origins* has one member for each answer, at the same place.

    Attributes:
        exposure_id: Identifies the answer.
        user_id: The user.
        items: The ids of the items, best first.
        time_us: Time of the answer, microseconds since the epoch.
        took_us: Time that the answer took, microseconds.
        origins: The different origins of the answers.
        origin: The place in *origins* of the answer's.
        propensities: The propensity of each item of the answer, null if nothing was drawn; absent if all are null.
    """

    exposure_id: Annotated[list[ExposureId], Meta(min_length=1, max_length=MAX_PART)]
    user_id: Annotated[list[UserId], Meta(max_length=MAX_PART)]
    items: Annotated[list[Annotated[list[ItemId], Meta(max_length=MAX_TOP_K)]], Meta(max_length=MAX_PART)]
    time_us: Annotated[list[Annotated[int, Meta(ge=0, le=_LATEST_US)]], Meta(max_length=MAX_PART)]
    took_us: Annotated[list[TookUs], Meta(max_length=MAX_PART)]
    origins: Annotated[list[Origin], Meta(max_length=MAX_PART)]
    origin: Annotated[list[Annotated[int, Meta(ge=0)]], Meta(max_length=MAX_PART)]
    propensities: Annotated[
        list[Annotated[list[Propensity], Meta(max_length=MAX_TOP_K)] | None], Meta(max_length=MAX_PART)
    ] = []


class ServedGroupData(Struct, frozen=True):
    """
    `recommendation.served.group.v1`: several answers, in parts, because the sender describes a part while it is recent.

    Attributes:
        parts: The parts; together they describe at most MAX_GROUP answers.
    """

    parts: Annotated[list[ServedPart], Meta(min_length=1, max_length=MAX_GROUP)]


interaction = Decoder(InteractionData)
user_updated = Decoder(UserUpdatedData)
erased = Decoder(ErasedData)
item_upserted = Decoder(ItemUpsertedData)
item_removed = Decoder(ItemRemovedData)
requested = Decoder(RequestedData)
extracted = Decoder(ExtractedData)
served = Decoder(ServedData)
served_group = Decoder(ServedGroupData, may_be_long=True)
