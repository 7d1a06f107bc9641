"""
The events of the pipeline: their types and data.

    interaction.v1                somebody did something          -> extract_features counts it
    recommendation.requested.v1   somebody wants recommendations  -> recommend (or, in a Sequence, extract_features)
    features.extracted.v1         who they are, in a Sequence     -> rank_items
    features.updated.v1           features changed                   reply of extract_features, where switched on
    recommendation.completed.v1   what to show                       reply of recommend and rank_items
    recommendation.served.v1      what was shown                     sent by recommend to K_SINK, for the feedback loop
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from chassis.wire.decoding import Decoder
from recsys.contracts.wire import DEFAULT_TOP_K, Exclude, Features, History, ItemId, TopK, UserId

INTERACTION = "dev.recsys.interaction.v1"
REQUESTED = "dev.recsys.recommendation.requested.v1"
EXTRACTED = "dev.recsys.features.extracted.v1"
UPDATED = "dev.recsys.features.updated.v1"
COMPLETED = "dev.recsys.recommendation.completed.v1"
SERVED = "dev.recsys.recommendation.served.v1"

Kind = Literal["view", "click", "purchase", "session_end"]

_LONGEST_SESSION_S = 7 * 86_400.0


class InteractionData(Struct, frozen=True, forbid_unknown_fields=True):
    """
    `interaction.v1`.

    Attributes:
        user_id: Who.
        kind: Did what.
        item_id: To what; wanted for everything but the end of a session.
        duration_s: Length of the session that ended, seconds.
        time: When, RFC 3339; the event's own time where absent.
    """

    user_id: UserId
    kind: Kind
    item_id: ItemId | None = None
    duration_s: Annotated[float, Meta(ge=0, le=_LONGEST_SESSION_S)] | None = None
    time: Annotated[str, Meta(max_length=64)] | None = None


class RequestedData(Struct, frozen=True, forbid_unknown_fields=True):
    """`recommendation.requested.v1`: the body of a request to recommend."""

    user_id: UserId
    top_k: TopK = DEFAULT_TOP_K
    exclude: Exclude = []


class ExtractedData(Struct, frozen=True):
    """`features.extracted.v1`: what rank_items needs, and for whom it is."""

    user_id: UserId
    features: Features
    history: History
    top_k: TopK = DEFAULT_TOP_K
    exclude: Exclude = []


interaction = Decoder(InteractionData)
requested = Decoder(RequestedData)
extracted = Decoder(ExtractedData)
