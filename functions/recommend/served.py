"""Descriptions of answers in events: of one answer, or of several column by column."""

from collections.abc import Iterator

import msgspec
from msgspec.structs import asdict

from functions.recommend.hops import decode_items
from functions.recommend.recommender import Recommended
from recsys.contracts.events import Origin, ServedPart
from recsys.contracts.wire import Model


class _Id(msgspec.Struct, frozen=True, gc=False):
    item_id: str


_ids = msgspec.json.Decoder(list[_Id])
_propensities = msgspec.json.Decoder(list[float] | None)
_model = msgspec.json.Decoder(Model | None)
_encode = msgspec.json.Encoder().encode
_NULL = b"null"


class Noted(msgspec.Struct, frozen=True):
    """
    An answer to report.

    Attributes:
        recommended: The answer, and how it was made.
        exposure_id: Its id in events.
        request_id: The id of its request.
        time_us: When it was made, microseconds since the epoch.
        took_s: How long it took.
    """

    recommended: Recommended
    exposure_id: str
    request_id: str
    time_us: int
    took_s: float = 0.0

    @property
    def took_us(self) -> int:
        """How long the answer took, microseconds."""
        return round(self.took_s * 1e6)

    def origin(self) -> Origin:
        """
        Return how the answer was made.

        Raises:
            msgspec.DecodeError: the model is malformed.
        """
        made, treatment = self.recommended, self.recommended.treatment
        return Origin(
            _model.decode(made.model or _NULL),
            treatment.experiment if treatment else None,
            treatment.arm if treatment else None,
            made.answer.degraded,
            made.arm_failed,
        )

    def propensities(self) -> list[float] | None:
        """Return the propensity of each item; None if nothing was drawn at random."""
        found: list[float] | None = _propensities.decode(self.recommended.propensities)
        return found


class Shown(msgspec.Struct, frozen=True):
    """
    One item of an answer.

    Attributes:
        item_id: The item.
        score: The score in the answer.
        position: The position in the answer, from 1.
        propensity: The probability that the item gets this position: 1 without exploration.
    """

    item_id: str
    score: float
    position: int
    propensity: float = 1.0


class Served(msgspec.Struct, frozen=True):
    """
    The description of one answer in an event.

    Attributes:
        exposure_id: Identifies the answer.
        user_id: The user.
        items: The items, best first.
        model: The artefact that ranked; null for the popular list.
        degraded: The hops that failed.
        request_id: The id of the request.
        experiment: The experiment that the answer belongs to.
        arm: The arm of the experiment.
        arm_failed: Whether the arm could not rank, so that the default did; absent if not.
        took_us: The time that the answer took, microseconds.
    """

    exposure_id: str
    user_id: str
    items: list[Shown]
    model: Model | None
    degraded: tuple[str, ...]
    request_id: str
    experiment: str | None = None
    arm: str | None = None
    arm_failed: bool | msgspec.UnsetType = msgspec.UNSET
    took_us: int = 0


def describe(noted: Noted) -> Served:
    """
    Return the description of one answer.

    Raises:
        msgspec.DecodeError: the answer of rank_items is malformed.
    """
    answer, origin = noted.recommended.answer, noted.origin()
    ranked = decode_items(answer.recommendations)
    propensities = noted.propensities() or [1.0] * len(ranked)
    return Served(
        noted.exposure_id,
        answer.user_id,
        [
            Shown(item.item_id, item.score, position, propensity)
            for position, (item, propensity) in enumerate(zip(ranked, propensities, strict=True), 1)
        ],
        origin.model,
        origin.degraded,
        noted.request_id,
        origin.experiment,
        origin.arm,
        origin.arm_failed or msgspec.UNSET,
        noted.took_us,
    )


class AnswerColumns:
    """Describes several answers."""

    def __init__(self) -> None:
        self._columns = ServedPart([], [], [], [], [], [], [], [])
        self._places: dict[tuple[object, ...], int] = {}

    def add(self, noted: Noted) -> None:
        """
        Add an answer; about 1.5 us.

        Raises:
            msgspec.DecodeError, ValueError: the answer of rank_items is malformed; nothing was added.
        """
        columns, answer = self._columns, noted.recommended.answer
        ids, propensities = [each.item_id for each in _ids.decode(answer.recommendations)], noted.propensities()
        if propensities and len(propensities) != len(ids):
            # extract_features would refuse the whole event.
            raise ValueError(f"{len(propensities)} propensities of {len(ids)} items")
        origin = self._place_origin(noted)
        columns.exposure_id.append(noted.exposure_id)
        columns.user_id.append(answer.user_id)
        columns.items.append(ids)
        columns.time_us.append(noted.time_us)
        columns.took_us.append(noted.took_us)
        columns.origin.append(origin)
        columns.propensities.append(propensities)

    def _place_origin(self, noted: Noted) -> int:
        """Return the place of the answer's origin in the column of origins, and add it if it is new."""
        made, treatment = noted.recommended, noted.recommended.treatment
        arm = (treatment.experiment, treatment.arm) if treatment else None
        key = (bytes(made.model), arm, made.answer.degraded, made.arm_failed)
        place = self._places.get(key)
        if place is None:
            self._columns.origins.append(noted.origin())
            place = self._places[key] = len(self._places)
        return place

    def bodies(self, *, most_bytes: int) -> Iterator[tuple[bytes, int]]:
        """Yield JSON of at most *most_bytes* about the answers, each with their number; a longer answer is alone."""
        columns = self._columns
        if not columns.exposure_id:
            return
        if not any(columns.propensities):
            columns = msgspec.structs.replace(columns, propensities=[])
        yield from _encode_within(columns, most_bytes)


def _encode_within(columns: ServedPart, most_bytes: int) -> Iterator[tuple[bytes, int]]:
    body, count = _encode(columns), len(columns.exposure_id)
    if len(body) <= most_bytes or count == 1:
        yield body, count
        return
    half = count // 2
    for part in (slice(half), slice(half, None)):
        own = {name: column[part] for name, column in asdict(columns).items() if name != "origins"}
        yield from _encode_within(msgspec.structs.replace(columns, **own), most_bytes)
