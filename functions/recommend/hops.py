"""What recommend says to the two other functions, and what it reads of their answers."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
from msgspec import Raw, Struct

from chassis.batching.queue import BatchLimits
from chassis.call import Call
from chassis.hop.client import Hop, HopAnswer
from chassis.wire.problems import DeadlineExceededError, ServingError
from functions.recommend.coalescing import Coalescer
from recsys.contracts import wire
from recsys.features import NOBODY

T = TypeVar("T")

# The longest request to rank_items that holds several calls: half of what it takes, so that what has to be cut is not
# cut finely. A single call, 1000 ids of history and 1000 of exclude at their longest, has half of this.
MAX_REQUEST_BYTES = 2 * 1024 * 1024
# Of a call that is cut, so many parts are under way at once: each keeps an instance busy reading for milliseconds.
PARTS_AT_ONCE = 4

_OPENING, _SEPARATOR, _CLOSING = b'{"requests":[', b",", b"]}"


class Known(Struct, frozen=True):
    """What of extract_features' answer goes on to rank_items, unread."""

    features: Raw
    history: Raw


class RankCall(Struct, frozen=True):
    """A request to rank_items, with features and history as extract_features wrote them."""

    features: Raw
    history: Raw
    top_k: int
    exclude: Sequence[str] = ()


class Ranked(Struct, frozen=True):
    """What of rank_items' answer goes on, unread; no `items` where this one request failed."""

    items: Raw = Raw()
    model: Raw = Raw(b"null")


Outcome = Ranked | ServingError


class _Results(Struct, frozen=True):
    results: list[Raw]


STRANGER = Known(Raw(wire.encode(NOBODY)), Raw(b"[]"))

_known = msgspec.json.Decoder(Known).decode
_ranked = msgspec.json.Decoder(Ranked).decode
_results = msgspec.json.Decoder(_Results)


class FeatureSource:
    """
    extract_features as recommend uses it.

    Args:
        hop: The way there.
        coalesce: Send single requests that are due together as one; None sends each alone.
    """

    def __init__(self, hop: Hop, *, coalesce: BatchLimits | None = None) -> None:
        self._hop = hop
        self._coalescer = Coalescer(self._send, limits=coalesce) if coalesce else None

    def waiting(self) -> int:
        """Return how many requests wait for a call in flight."""
        return self._coalescer.waiting if self._coalescer else 0

    async def fetch(self, user_ids: Sequence[str], *, call: Call, within_s: float) -> HopAnswer[list[Known]]:
        """Return what is known of each user, in one round trip; raises as `Hop.send`."""
        if self._coalescer and len(user_ids) == 1:
            return await self._coalescer.ask(user_ids[0], call=call, within_s=within_s)
        return await self._send(user_ids, call=call, within_s=within_s)

    async def _send(self, queries: Sequence[str], *, call: Call, within_s: float) -> HopAnswer[list[Known]]:
        asked = {"user_id": queries[0]} if len(queries) == 1 else {"user_ids": queries}
        body = wire.encode(asked)
        return await self._hop.send(body, call=call, within_s=within_s, decode=_reader(_known, len(queries)))


class Ranking:
    """
    rank_items as recommend uses it.

    Args:
        hop: The way there.
        coalesce: Send single requests that are due together as one; None sends each alone.
    """

    def __init__(self, hop: Hop, *, coalesce: BatchLimits | None = None) -> None:
        self._hop = hop
        self._coalescer = Coalescer(self._send, limits=coalesce) if coalesce else None
        # As many as may share a request fit into one: nobody waits for a part with somebody else's.
        self._most_shared = MAX_REQUEST_BYTES // coalesce.max_batch_size - len(_OPENING + _CLOSING) if coalesce else 0

    def waiting(self) -> int:
        """Return how many requests wait for a call in flight."""
        return self._coalescer.waiting if self._coalescer else 0

    async def rank(self, calls: Sequence[RankCall], *, call: Call, within_s: float) -> HopAnswer[list[Outcome]]:
        """
        Return the ranked items for each of *calls*, or its error, in one round trip.

        Calls longer than MAX_REQUEST_BYTES together go in parts that fail each on its own. A single long call goes alone.

        Raises:
            DependencyError, DeadlineExceededError: as `Hop.send`; of several parts all failed, and this is the first's.

        Cost: encodes each call once.
        """
        queries = [wire.encode(each) for each in calls]
        if self._coalescer and len(queries) == 1 and len(queries[0]) <= self._most_shared:
            return await self._coalescer.ask(queries[0], call=call, within_s=within_s)
        return await self._send(queries, call=call, within_s=within_s)

    async def _send(self, queries: Sequence[bytes], *, call: Call, within_s: float) -> HopAnswer[list[Outcome]]:
        parts = cut(queries, most_bytes=MAX_REQUEST_BYTES)
        if len(parts) == 1:
            return await self._post(queries, call=call, within_s=within_s)
        began = time.monotonic()
        free = asyncio.Semaphore(PARTS_AT_ONCE)

        async def post(part: Sequence[bytes]) -> HopAnswer[list[Outcome]] | ServingError:
            async with free:
                left_s = within_s - (time.monotonic() - began)
                try:
                    return await self._post(part, call=call, within_s=left_s)
                except ServingError as error:
                    return error

        async with asyncio.TaskGroup() as group:
            posted = [group.create_task(post(part)) for part in parts]
        return _join(parts, [each.result() for each in posted], spent_s=time.monotonic() - began)

    async def _post(self, queries: Sequence[bytes], *, call: Call, within_s: float) -> HopAnswer[list[Outcome]]:
        if within_s <= 0:
            # Not the hop's failure: its breaker does not hear of it.
            raise DeadlineExceededError
        body = queries[0] if len(queries) == 1 else _OPENING + _SEPARATOR.join(queries) + _CLOSING
        return await self._hop.send(body, call=call, within_s=within_s, decode=_reader(_ranked, len(queries)))


def cut(queries: Sequence[bytes], *, most_bytes: int) -> list[Sequence[bytes]]:
    """
    Return *queries* in order, in the fewest parts that make requests of at most *most_bytes* each.

    A query that is longer is a part of its own. Without queries there is one part without any.
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
    parts: Sequence[Sequence[bytes]], answers: Sequence[HopAnswer[list[Outcome]] | ServingError], *, spent_s: float
) -> HopAnswer[list[Outcome]]:
    """Return the answers to *parts* as one, with the receipt of the slowest; raise where there is none."""
    outcomes: list[Outcome] = []
    slowest: HopAnswer[list[Outcome]] | None = None
    for part, answer in zip(parts, answers, strict=True):
        if isinstance(answer, ServingError):
            outcomes += [answer] * len(part)
        else:
            outcomes += answer.value
            slowest = answer if slowest is None or answer.spent_s > slowest.spent_s else slowest
    if slowest is None:
        raise next(answer for answer in answers if isinstance(answer, ServingError))
    return HopAnswer(outcomes, spent_s, slowest.durations, slowest.facts)


def _reader(one: Callable[[bytes | Raw], T], count: int) -> Callable[[bytes], list[T]]:
    """Return what reads an answer to *count* requests: the single door's for one, the batch door's for more."""
    if count == 1:
        return lambda body: [one(body)]

    def read(body: bytes) -> list[T]:
        results = _results.decode(body).results
        if len(results) != count:
            raise msgspec.DecodeError(f"{len(results)} results for {count} requests")
        return [one(each) for each in results]

    return read
