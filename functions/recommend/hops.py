"""What recommend says to the two other functions, and what it reads of their answers."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
from msgspec import Raw, Struct

from functions.recommend.coalescing import Coalescer
from recsys.batching import BatchLimits
from recsys.contracts import wire
from recsys.features import NOBODY
from recsys.serving.call import Call
from recsys.serving.client import Hop, HopAnswer

T = TypeVar("T")


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


class _Results(Struct, frozen=True):
    results: list[Raw]


STRANGER = Known(Raw(wire.encode(NOBODY)), Raw(b"[]"))

_known = msgspec.json.Decoder(Known)
_ranked = msgspec.json.Decoder(Ranked)
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

    def waiting(self) -> int:
        """Return how many requests wait for a call in flight."""
        return self._coalescer.waiting if self._coalescer else 0

    async def rank(self, calls: Sequence[RankCall], *, call: Call, within_s: float) -> HopAnswer[list[Ranked]]:
        """Return the ranked items for each of *calls*, in one round trip; raises as `Hop.send`."""
        if self._coalescer and len(calls) == 1:
            return await self._coalescer.ask(calls[0], call=call, within_s=within_s)
        return await self._send(calls, call=call, within_s=within_s)

    async def _send(self, queries: Sequence[RankCall], *, call: Call, within_s: float) -> HopAnswer[list[Ranked]]:
        body = wire.encode(queries[0] if len(queries) == 1 else {"requests": queries})
        return await self._hop.send(body, call=call, within_s=within_s, decode=_reader(_ranked, len(queries)))


def _reader(one: msgspec.json.Decoder[T], count: int) -> Callable[[bytes], list[T]]:
    """Return what reads an answer to *count* requests: the single door's for one, the batch door's for more."""
    if count == 1:
        return lambda body: [one.decode(body)]

    def read(body: bytes) -> list[T]:
        results = _results.decode(body).results
        if len(results) != count:
            raise msgspec.DecodeError(f"{len(results)} results for {count} requests")
        return [one.decode(each) for each in results]

    return read
