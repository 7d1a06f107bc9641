"""Descriptions of answers in events: of one answer, or of a group column by column."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Self

import msgspec
from msgspec import Raw
from msgspec.structs import asdict

from functions.recommend.hops import decode_items
from functions.recommend.recommender import Recommended
from recsys.contracts.events import Origin, ServedGroupData
from recsys.contracts.wire import Model


class _Id(msgspec.Struct, frozen=True, gc=False):
    item_id: str


_ids = msgspec.json.Decoder(list[_Id])
_propensities = msgspec.json.Decoder(list[float] | None)
_model = msgspec.json.Decoder(Model | None)
_encode = msgspec.json.Encoder().encode
_NULL = b"null"


class Made(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """
    How answers were made.

    Attributes:
        model: The model that ranked, JSON; null if no model did.
        experiment: The experiment that the answers belong to.
        arm: The arm of the experiment.
        degraded: The hops that failed.
        arm_failed: Whether the arm could not rank, so that the default did.
    """

    model: bytes
    experiment: str | None
    arm: str | None
    degraded: tuple[str, ...]
    arm_failed: bool

    def origin(self) -> Origin:
        """
        Return the origin of answers in events.

        Raises:
            msgspec.DecodeError: the model is malformed.
        """
        return Origin(_model.decode(self.model), self.experiment, self.arm, self.degraded, self.arm_failed)


# Answers that were made alike share one object.
_made = lru_cache(256)(Made)


class Noted(msgspec.Struct, frozen=True, gc=False):
    """
    The facts about an answer that events report. The garbage collector does not track them (`gc=False`).

    Attributes:
        exposure_id: Identifies the answer in events.
        user_id: The user.
        request_id: The id of the request.
        time_us: When the answer was made, microseconds since the epoch.
        took_us: How long it took, microseconds.
        recommendations: The items and scores, JSON.
        propensities: The propensity of each item, JSON; null if nothing was drawn at random.
        made: How the answer was made.
    """

    exposure_id: str
    user_id: str
    request_id: str
    time_us: int
    took_us: int
    recommendations: bytes
    propensities: bytes
    made: Made

    @classmethod
    def of(cls, recommended: Recommended, exposure_id: str, request_id: str, time_us: int, took_s: float) -> Self:
        """Return the facts about *recommended*."""
        answer, treatment = recommended.answer, recommended.treatment
        experiment, arm = (treatment.experiment, treatment.arm) if treatment else (None, None)
        made = _made(bytes(recommended.model) or _NULL, experiment, arm, answer.degraded, recommended.arm_failed)
        return cls(
            exposure_id,
            answer.user_id,
            request_id,
            time_us,
            round(took_s * 1e6),
            # A view would keep the whole body in memory, with the answers to other callers.
            bytes(answer.recommendations),
            bytes(recommended.propensities),
            made,
        )


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
    ranked = decode_items(Raw(noted.recommendations))
    propensities = _propensities.decode(noted.propensities) or [1.0] * len(ranked)
    origin = noted.made.origin()
    return Served(
        noted.exposure_id,
        noted.user_id,
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
    """Describes a group of answers."""

    def __init__(self) -> None:
        self._columns = ServedGroupData([], [], [], [], [], [], [], [], [])
        self._places: dict[Made, int] = {}

    def add(self, noted: Noted) -> None:
        """
        Add an answer; about 1.5 us.

        Raises:
            msgspec.DecodeError: the answer of rank_items is malformed; nothing was added.
        """
        columns = self._columns
        ids = [each.item_id for each in _ids.decode(noted.recommendations)]
        propensities = None if noted.propensities == _NULL else _propensities.decode(noted.propensities)
        place = self._places.get(noted.made)
        if place is None:
            columns.origins.append(noted.made.origin())
            place = self._places[noted.made] = len(self._places)
        columns.exposure_id.append(noted.exposure_id)
        columns.user_id.append(noted.user_id)
        columns.items.append(ids)
        columns.time_us.append(noted.time_us)
        columns.took_us.append(noted.took_us)
        columns.origin.append(place)
        columns.request_id.append(noted.request_id)
        columns.propensities.append(propensities)

    def bodies(self, *, most_bytes: int) -> Iterator[tuple[bytes, int]]:
        """Yield JSON of at most *most_bytes* about the answers, each with their number; a longer answer is alone."""
        columns = self._columns
        if not columns.exposure_id:
            return
        if not any(columns.propensities):
            columns = msgspec.structs.replace(columns, propensities=[])
        yield from _encode_within(columns, most_bytes)


def _encode_within(columns: ServedGroupData, most_bytes: int) -> Iterator[tuple[bytes, int]]:
    body, count = _encode(columns), len(columns.exposure_id)
    if len(body) <= most_bytes or count == 1:
        yield body, count
        return
    half = count // 2
    for part in (slice(half), slice(half, None)):
        own = {name: column[part] for name, column in asdict(columns).items() if name != "origins"}
        yield from _encode_within(msgspec.structs.replace(columns, **own), most_bytes)
