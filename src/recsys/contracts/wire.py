"""
The JSON bodies of the three functions, as types.

Requests refuse unknown fields, so that a caller notices a misspelt `topk`. Deploy a new field to the receiver before any
sender uses it (docs/how-to/change-the-wire.md).
Answers may gain fields, because readers of answers ignore unknown fields.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from chassis.wire.decoder import Decoder, split_members
from chassis.wire.event_rules import NOT_A_TIME, parse_time
from chassis.wire.json_text import NOT_DECODED
from chassis.wire.problems import Fault, InvalidRequestError, ServingError

R = TypeVar("R")

MAX_ID_LENGTH = 128
MAX_TOP_K = 100
DEFAULT_TOP_K = 5
MAX_HISTORY = 1000
MAX_EXCLUDE = 1000
MAX_BATCH = 256
MAX_VALUES = 100
EXPOSURE_HEADER = b"recsys-exposure"

UserId = Annotated[str, Meta(min_length=1, max_length=MAX_ID_LENGTH)]
ItemId = Annotated[str, Meta(min_length=1, max_length=MAX_ID_LENGTH)]
TopK = Annotated[int, Meta(ge=1, le=MAX_TOP_K)]
Exclude = Annotated[list[ItemId], Meta(max_length=MAX_EXCLUDE)]
History = Annotated[list[ItemId], Meta(max_length=MAX_HISTORY)]
Diversity = Annotated[float, Meta(ge=0, le=1)]
Moment = Annotated[datetime, Meta(tz=True)]


Name = Annotated[str, Meta(min_length=1, max_length=64)]
UserAttributes = Annotated[
    dict[Name, Annotated[list[Annotated[str, Meta(max_length=1000)]], Meta(max_length=MAX_VALUES)]], Meta(max_length=64)
]
Context = Annotated[dict[Name, Annotated[str, Meta(max_length=MAX_ID_LENGTH)] | float], Meta(max_length=32)]


class Condition(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """
    A condition of a filter: the item has one of the values *any_of* of *attribute*, or a number in a range.

    Attributes:
        attribute: The attribute.
        any_of: Values, of which the item has one.
        at_least: The least number; a time is in seconds since 1970.
        at_most: The largest number.
    """

    attribute: Name
    any_of: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=MAX_ID_LENGTH)]], Meta(min_length=1, max_length=100)
    ] = []
    at_least: float | None = None
    at_most: float | None = None

    @property
    def is_range(self) -> bool:
        """Whether the condition limits a number."""
        return self.at_least is not None or self.at_most is not None


class SessionItem(Struct, frozen=True, forbid_unknown_fields=True):
    """An item of a session, and the time of the newest action on it (RFC 3339)."""

    item_id: ItemId
    time: Annotated[str, Meta(max_length=64)] | None = None


Filter = Annotated[list[Condition], Meta(max_length=8)]
Session = Annotated[list[SessionItem], Meta(max_length=MAX_HISTORY)]
IncludeAll = Annotated[list[Literal["title", "attributes", "reason", "exposure"]], Meta(max_length=4)]
RankInclude = Annotated[list[Literal["title", "attributes", "reason", "item"]], Meta(max_length=4)]
Many = Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=MAX_BATCH)]


class RecommendRequest(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """
    `recommend`: the user, the number of items, and the items to leave out.

    Attributes:
        user_id: The user; required without *history* and *item_id*.
        top_k: Items wanted.
        exclude: Items to leave out.
        filter: Conditions that every item meets; none by default.
        diversity: How much items that resemble better ones lose, from 0 (nothing) to 1.
        history: Items of the session; they are newer than the stored history of the user, if there is one.
        item_id: Recommend what resembles this item.
        include: Further fields: of each item `title`, `attributes` and `reason`, and of the answer `exposure`.
        at: Time to recommend for, RFC 3339, for example to replay the past; by default the present.
        context: The situation of the user, such as the device or the page, by declared name.
    """

    user_id: UserId = ""
    top_k: TopK = DEFAULT_TOP_K
    exclude: Exclude = []
    filter: Filter = []
    diversity: Diversity = 0.0
    history: Session = []
    item_id: ItemId = ""
    include: IncludeAll = []
    at: Moment | None = None
    context: Context = {}


class RequestBatch(Struct, frozen=True, forbid_unknown_fields=True):
    """A batch of `recommend` or of `rank_items`: up to 256 requests, each with its own answer or error."""

    requests: Many


class Recommendations(Struct, frozen=True, omit_defaults=True):
    """
    The answer of `recommend`, as callers read it.

    Attributes:
        user_id: The user of the request.
        recommendations: Items and scores, best first.
        degraded: The hops that failed; absent if none did.
        degraded_reasons: The code of the error, by hop.
        exposure_id: Identifies the answer in events; if the request includes it, and the answer is reported.
    """

    user_id: str
    recommendations: list["RankedItem"]
    degraded: tuple[str, ...] = ()
    degraded_reasons: dict[str, str] = {}
    exposure_id: str = ""


class FeaturesRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """
    `extract_features`: the user.

    Attributes:
        user_id: The user.
        include: A further field of the answer, `times`.
    """

    user_id: UserId
    include: Annotated[list[Literal["times"]], Meta(max_length=1)] = []


class FeaturesBatch(Struct, frozen=True, forbid_unknown_fields=True):
    """`extract_features`, batch: answered with one round trip to the store."""

    user_ids: Annotated[list[UserId], Meta(min_length=1, max_length=MAX_BATCH)]


class Features(Struct, frozen=True):
    """
    The features of a user; the history is separate.

    Attributes:
        age_group: One of `recsys.features.AGE_GROUPS`; any other value counts as "unknown".
        avg_session_duration: Mean length of the user's sessions, seconds; 0 without sessions.
        total_purchases: All purchases of the user.
        engagement_score: The user's activity in a session, from 0 to 1.
    """

    age_group: Annotated[str, Meta(max_length=32)]
    avg_session_duration: Annotated[float, Meta(ge=0)]
    total_purchases: Annotated[int, Meta(ge=0, le=2**53)]
    engagement_score: Annotated[float, Meta(ge=0, le=1)]


class FeaturesAnswer(Struct, frozen=True, omit_defaults=True):
    """
    `extract_features`: the user, as of the user's newest interaction.

    Attributes:
        user_id: The user.
        features: The features.
        history: Ids of the items that the user had to do with, newest first.
        as_of: Time of the newest interaction.
        cold_start: Whether the user is unknown; absent if not.
        avoided: Ids of items that the user disliked or returned, newest first; absent without any.
        attributes: Values of the user's declared attributes, by name; absent without any. The age group is a feature.
        times: Time of the newest interaction with each item of the history, null if it is unknown; if the request
            includes it.
    """

    user_id: str
    features: Features
    history: list[str]
    as_of: str | None
    cold_start: bool = False
    avoided: list[str] = []
    attributes: dict[str, list[str]] = {}
    times: list[str | None] = []


class Exploration(Struct, frozen=True, forbid_unknown_fields=True):
    """
    How much of the lists is drawn at random, to learn what people do with items that they would not get otherwise.

    Attributes:
        share: Share of the lists in which one position is drawn.
        temperature: How little the scores count in the draw: near 0, only the best item is drawn; a large number makes
            all items equally likely.
    """

    share: Annotated[float, Meta(gt=0, le=1)] = 0.1
    temperature: Annotated[float, Meta(ge=0.01, le=1e6)] = 0.5


class RankRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """
    `rank_items`: the user as in the answer of extract_features; the other fields as in a request to recommend.

    Attributes:
        include: Further fields: of each item `title`, `attributes` and `reason`, and of the answer `item`.
        as_of: Time of the user's newest interaction, RFC 3339.
        exploration: Draw a part of the lists at random; absent for none.
        exposure_id: Id of the list, which determines what is drawn; required with *exploration*.
        user_attributes: `attributes` in the answer of extract_features.
    """

    features: Features
    history: History
    top_k: TopK = DEFAULT_TOP_K
    exclude: Exclude = []
    filter: Filter = []
    diversity: Diversity = 0.0
    avoided: History = []
    item_id: ItemId = ""
    include: RankInclude = []
    as_of: Moment | None = None
    at: Moment | None = None
    exploration: Exploration | None = None
    exposure_id: Annotated[str, Meta(max_length=2 * MAX_ID_LENGTH)] = ""
    user_attributes: UserAttributes = {}
    context: Context = {}


class Reason(Struct, frozen=True, omit_defaults=True):
    """The source that speaks most for an item, and the item of the history behind it, if there is one."""

    source: str
    item_id: str | None = None


class RankedItem(Struct, frozen=True):
    """An item and its score, rounded to three decimals; the other fields if the request includes them."""

    item_id: str
    score: float
    title: str | UnsetType = UNSET
    attributes: dict[str, tuple[str, ...]] | UnsetType = UNSET
    reason: Reason | UnsetType = UNSET


class Model(Struct, frozen=True):
    """The artefact that ranked."""

    name: str
    version: str


class CatalogueItem(Struct, frozen=True):
    """An item as an instance knows it; `available` tells whether users may get it."""

    item_id: str
    title: str
    attributes: dict[str, tuple[str, ...]]
    available: bool


class RankAnswer(Struct, frozen=True):
    """
    `rank_items`: the best items first, and the model that chose them.

    Attributes:
        items: The items.
        model: The model.
        propensities: For each item, the probability that it gets its position; absent without exploration.
        item: The item `item_id` of the request, if the request includes it.
    """

    items: list[RankedItem]
    model: Model
    propensities: Sequence[float] | UnsetType = UNSET
    item: CatalogueItem | UnsetType = UNSET


class BatchAnswer(Struct, frozen=True):
    """The answer to a batch: for each request, in their order, an answer or `{"error": problem document}`."""

    results: list[msgspec.Raw]


_ABSENT = msgspec.Raw(b"null")


class _Keys(Struct, frozen=True):
    requests: msgspec.Raw = _ABSENT
    user_ids: msgspec.Raw = _ABSENT


encode = msgspec.json.Encoder().encode


class _RequestDecoder(Decoder[RecommendRequest]):
    """Decodes requests to recommend; refuses those that name no user, no session and no item, and times of no form."""

    def _read(self, body: bytes, check: Callable[[RecommendRequest], R]) -> R:
        return super()._read(body, lambda request: check(_checked(request)))


def _checked(request: RecommendRequest) -> RecommendRequest:
    faults = list(_faulty_times(request.history))
    if not (request.user_id or request.item_id or request.history):
        faults.append(Fault("$.user_id", "is missing; send user_id, history or item_id"))
    if faults:
        raise InvalidRequestError(faults=faults)
    return request


def _faulty_times(session: Sequence[SessionItem]) -> Iterator[Fault]:
    for place, item in enumerate(session):
        try:
            parse_time(item.time or _SOME_TIME)
        except ValueError:
            yield Fault(f"$.history[{place}].time", NOT_A_TIME)


_SOME_TIME = "1970-01-01T00:00:00Z"

recommend_request = _RequestDecoder(RecommendRequest)
request_batch = Decoder(RequestBatch)
features_request = Decoder(FeaturesRequest)
features_batch = Decoder(FeaturesBatch)
rank_request = Decoder(RankRequest)
_keys = msgspec.json.Decoder(_Keys)
# Most batches start with the key. Looking no further saves reading a long body.
_STARTS = {key: re.compile(rb'\s*\{\s*"%s"\s*:\s*[^\sn]' % key.encode()) for key in _Keys.__struct_fields__}


def is_batch(body: bytes, key: Literal["requests", "user_ids"]) -> bool:
    """
    Tell whether *body* is a batch: a JSON object with the member *key*.

    Text that begins as a batch counts as a batch, even if the rest is not JSON. The batch's decoder refuses that text.
    """
    if key.encode() not in body:
        return False
    if _STARTS[key].match(body):
        return True
    try:
        return bytes(getattr(_keys.decode(body), key)) != b"null"
    except NOT_DECODED:
        return False


def split_batch(body: bytes) -> Sequence[msgspec.Raw] | None:
    """
    Return the requests of a batch, not decoded; None if *body* is a single request.

    Raises:
        NotJsonError, InvalidRequestError: as `Decoder.decode`.
    """
    if b"requests" not in body:
        return None
    if (requests := split_members(body, "requests", most=MAX_BATCH)) is not None:
        return requests
    return request_batch.decode(body).requests if is_batch(body, "requests") else None


def error_result(error: ServingError) -> msgspec.Raw:
    """Return the entry of a batch answer for a request that failed with *error*."""
    return msgspec.Raw(encode({"error": error.problem()}))
