"""The requests of recommend to the other two functions, and the parts of their answers that it uses."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from chassis.batching.queue import BatchLimits
from chassis.call import Call
from chassis.hop.client import Hop, HopAnswer
from chassis.wire.problems import DeadlineExceededError, Fault, ServingError
from functions.recommend.call_batching import CallBatcher, SendMany
from recsys.contracts import wire
from recsys.contracts.wire import BatchAnswer, Condition, Exploration, RankedItem
from recsys.features import UNKNOWN_FEATURES

T = TypeVar("T")
Query = TypeVar("Query", bound=Sized)

# The longest request to rank_items that holds several calls: half of its limit, so that few requests need parts.
# The longest single call, with 1000 ids of history and 1000 of exclude, has half of this length.
MAX_REQUEST_BYTES = 2 * 1024 * 1024
# How many parts of one request are in flight together. Each keeps an instance busy for milliseconds.
PARTS_AT_ONCE = 4
# Most single calls in one request to a hop, and the requests in flight of a quick hop.
MOST_CALLS, IN_FLIGHT = 16, 4

_OPENING, _SEPARATOR, _CLOSING = b'{"requests":[', b",", b"]}"


class Known(Struct, frozen=True):
    """The parts of extract_features' answer that go to rank_items. Only the avoided items, which are rare, are decoded."""

    features: Raw
    history: Raw
    avoided: list[str] = []
    as_of: Raw = Raw(b"null")
    attributes: Raw | UnsetType = UNSET


class RankCall(Struct, frozen=True):
    """
    A request to rank_items, with features and history as extract_features encoded them.

    Optional fields without a value are not sent.
    """

    features: Raw
    history: Raw
    top_k: int
    exclude: Sequence[str] = ()
    filter: Sequence[Condition] | UnsetType = UNSET
    diversity: float | UnsetType = UNSET
    avoided: Sequence[str] | UnsetType = UNSET
    item_id: str | UnsetType = UNSET
    include: Sequence[str] | UnsetType = UNSET
    as_of: Raw | UnsetType = UNSET
    at: datetime | UnsetType = UNSET
    user_attributes: Raw | UnsetType = UNSET
    context: Mapping[str, str | float] | UnsetType = UNSET
    exploration: Exploration | UnsetType = UNSET
    exposure_id: str | UnsetType = UNSET

    @property
    def is_checked(self) -> bool:
        """Whether rank_items checks a field of the caller."""
        return bool(self.filter or self.item_id or self.context)


class _RankQuery(Struct, frozen=True):
    """An encoded call, and whether rank_items checks a field of the caller in it."""

    body: bytes
    is_checked: bool

    def __len__(self) -> int:
        return len(self.body)


class Ranked(Struct, frozen=True):
    """
    The parts of rank_items' answer that recommend uses, not decoded.

    If the request failed, `items` is empty, and `error` is the problem document. `propensities` is null without
    exploration.
    """

    items: Raw = Raw()
    model: Raw = Raw(b"null")
    propensities: Raw = Raw(b"null")
    error: Raw = Raw(b"null")

    def caller_faults(self) -> list[Fault]:
        """Return the faults that rank_items found in the fields that the caller sent."""
        problem = _problem(self.error)
        return [fault for fault in (problem.errors if problem else ()) if fault.path.startswith(_OF_CALLERS)]


_OF_CALLERS = ("$.filter", "$.item_id", "$.context")

RankOutcome = Ranked | ServingError


UNKNOWN_USER = Known(Raw(wire.encode(UNKNOWN_FEATURES)), Raw(b"[]"))


class _Problem(Struct, frozen=True):
    errors: list[Fault] = []


_known = msgspec.json.Decoder(Known).decode
_problem = msgspec.json.Decoder(_Problem | None).decode
_ranked = msgspec.json.Decoder(Ranked).decode
decode_items = msgspec.json.Decoder(list[RankedItem]).decode
_results = msgspec.json.Decoder(BatchAnswer)


class FeaturesClient:
    """
    Fetches features from extract_features.

    Args:
        hop: The client for extract_features.
        batch: Limits of the batches in which single requests are sent; None sends each request alone.
    """

    def __init__(self, hop: Hop, *, batch: BatchLimits | None = None) -> None:
        self._hop = hop
        self._batcher = CallBatcher(self._post, limits=batch) if batch else None
        self._send: SendMany[str, Known] = self._batcher or self._post

    def waiting(self) -> int:
        """Return the number of requests that wait for a call in flight."""
        return self._batcher.waiting if self._batcher else 0

    async def fetch(self, user_ids: Sequence[str], *, call: Call, within_s: float) -> HopAnswer[list[Known]]:
        """Return the features and the history of each user, in one round trip; raises as `Hop.send`."""
        return await self._send(user_ids, call=call, within_s=within_s)

    async def _post(self, queries: Sequence[str], *, call: Call, within_s: float) -> HopAnswer[list[Known]]:
        asked = {"user_id": queries[0]} if len(queries) == 1 else {"user_ids": queries}
        body = wire.encode(asked)
        return await self._hop.send(
            body, call=call, within_s=within_s, decode=_reader(_known, len(queries), alone=len(queries) == 1)
        )


class RankingClient:
    """
    Fetches ranked items from rank_items.

    Args:
        hop: The client for rank_items.
        batch: Limits of the batches in which single requests are sent; None sends each request alone. While the model is
            quick, the limits are those of calls to extract_features.
    """

    def __init__(self, hop: Hop, *, batch: BatchLimits | None = None) -> None:
        self._hop = hop
        self._batcher: CallBatcher[_RankQuery, RankOutcome] | None = None
        if batch:
            # A batch of queries up to this length fits into one request, so no query waits for the parts of another one.
            most = max(batch.max_batch_size, MOST_CALLS)
            longest = MAX_REQUEST_BYTES // most - len(_OPENING + _CLOSING)
            quick = replace(batch, max_batch_size=most, slots=min(batch.slots, IN_FLIGHT))
            self._batcher = CallBatcher(
                self._send_parts, limits=batch, quick=quick, fits=lambda query: len(query) <= longest
            )
        self._send: SendMany[_RankQuery, RankOutcome] = self._batcher or self._send_parts

    def waiting(self) -> int:
        """Return the number of requests that wait for a call in flight."""
        return self._batcher.waiting if self._batcher else 0

    async def rank(self, calls: Sequence[RankCall], *, call: Call, within_s: float) -> HopAnswer[list[RankOutcome]]:
        """
        Return the ranked items for each of *calls*, or its error, in one round trip.

        If the calls are longer than MAX_REQUEST_BYTES together, they are sent in parts, and a part that fails does not
        fail the others. A single long call is sent alone.

        Raises:
            DependencyError, DeadlineExceededError: as `Hop.send`. If all parts failed, the error of the first.

        Cost: encodes each call once.
        """
        queries = [_RankQuery(wire.encode(each), each.is_checked) for each in calls]
        return await self._send(queries, call=call, within_s=within_s)

    async def _send_parts(
        self, queries: Sequence[_RankQuery], *, call: Call, within_s: float
    ) -> HopAnswer[list[RankOutcome]]:
        parts = cut(queries, most_bytes=MAX_REQUEST_BYTES)
        if len(parts) == 1:
            return await self._post(queries, call=call, within_s=within_s)
        began = time.monotonic()
        free = asyncio.Semaphore(PARTS_AT_ONCE)

        async def post(part: Sequence[_RankQuery]) -> HopAnswer[list[RankOutcome]] | ServingError:
            async with free:
                left_s = within_s - (time.monotonic() - began)
                try:
                    return await self._post(part, call=call, within_s=left_s)
                except ServingError as error:
                    return error

        async with asyncio.TaskGroup() as group:
            posted = [group.create_task(post(part)) for part in parts]
        return _join(parts, [each.result() for each in posted], spent_s=time.monotonic() - began)

    async def _post(
        self, queries: Sequence[_RankQuery], *, call: Call, within_s: float
    ) -> HopAnswer[list[RankOutcome]]:
        if within_s <= 0:
            # The hop was not called, so its breaker must not count a failure.
            raise DeadlineExceededError
        # In a batch answer each request has its own error, so only the caller whose field is faulty gets its faults.
        bodies = [query.body for query in queries]
        alone = len(queries) == 1 and not queries[0].is_checked
        body = bodies[0] if alone else _OPENING + _SEPARATOR.join(bodies) + _CLOSING
        decode: Callable[[bytes], list[RankOutcome]] = _reader(_ranked, len(queries), alone=alone)
        return await self._hop.send(body, call=call, within_s=within_s, decode=decode)


def cut(queries: Sequence[Query], *, most_bytes: int) -> list[Sequence[Query]]:
    """
    Return *queries* in order, in the fewest parts whose requests have at most *most_bytes* each.

    Each longer query forms one part. Without queries the result is one empty part.
    """
    envelope = len(_OPENING) + len(_CLOSING)
    if len(queries) == 1 or envelope + sum(map(len, queries)) + len(queries) <= most_bytes:
        return [queries]
    cuts, length = [0], envelope
    for place, query in enumerate(queries):
        if length + len(query) > most_bytes and place > cuts[-1]:
            cuts.append(place)
            length = envelope
        length += len(query) + len(_SEPARATOR)
    return [queries[begin:end] for begin, end in zip(cuts, [*cuts[1:], len(queries)], strict=True)]


def _join(
    parts: Sequence[Sequence[Sized]], answers: Sequence[HopAnswer[list[RankOutcome]] | ServingError], *, spent_s: float
) -> HopAnswer[list[RankOutcome]]:
    """
    Return the answers to *parts* as one answer, with the receipt of the slowest part.

    Raises:
        ServingError: the error of the first part, if all parts failed.
    """
    outcomes: list[RankOutcome] = []
    slowest: HopAnswer[list[RankOutcome]] | None = None
    for part, answer in zip(parts, answers, strict=True):
        if isinstance(answer, ServingError):
            outcomes += [answer] * len(part)
        else:
            outcomes += answer.value
            slowest = answer if slowest is None or answer.spent_s > slowest.spent_s else slowest
    if slowest is None:
        raise next(answer for answer in answers if isinstance(answer, ServingError))
    return HopAnswer(outcomes, spent_s, slowest.durations, slowest.facts)


def _reader(one: Callable[[bytes | Raw], T], count: int, *, alone: bool) -> Callable[[bytes], list[T]]:
    """Return the decoder of an answer to *count* requests: a single answer if the request was sent *alone*."""
    if alone:
        return lambda body: [one(body)]

    def read(body: bytes) -> list[T]:
        results = _results.decode(body).results
        if len(results) != count:
            raise msgspec.DecodeError(f"{len(results)} results for {count} requests")
        return [one(each) for each in results]

    return read
