"""
Copies a share of the calls to rank_items to a candidate, and compares its lists with those that were served.

A copy leaves after the answer has left. It changes no answer, and the number of copies in flight is limited, so a
candidate that fails or hangs costs callers nothing.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from chassis.call import Call, Deadline
from chassis.hop.client import Hop, HopAnswer
from chassis.receipt import Receipt
from chassis.telemetry.instruments import Histogram, Instrument, Totals
from chassis.telemetry.tracing import PassOn
from chassis.wire.problems import ServingError
from functions.recommend.hops import Ranked, decode_items
from recsys import metrics
from recsys.agreement import correlation, overlap

T = TypeVar("T")

MOST_IN_FLIGHT = 8
# By then the answer has left: the event loop writes it in the turn in which the handler returns.
_LATER_S = 0.02
_WITHIN_S = 5.0
# Comparing longer lists would hold up the event loop: the cost grows with the square of their length.
_COMPARED_ITEMS = 20


class Shadow:
    """
    Passes calls on to rank_items, and copies some of them to a candidate.

    Args:
        hop: Answers the calls.
        candidate: Gets the copies.
        share: Share of the calls that are copied, 0 to 1.
        draw: Returns a number from 0 to 1 for each call.

    Attributes:
        outcomes: Number of copies by outcome.
    """

    def __init__(self, hop: Hop, candidate: Hop, *, share: float, draw: Callable[[], float] = random.random) -> None:
        self._hop = hop
        self._candidate = candidate
        self._share = share
        self._draw = draw
        self._copies: set[asyncio.Task[None]] = set()
        self.outcomes: Counter[str] = Counter(compared=0, failed=0, dropped=0)
        self._overlap = Histogram(metrics.SHADOW_OVERLAP)
        self._order = Histogram(metrics.SHADOW_ORDER)

    def instruments(self) -> list[Instrument]:
        """Return the metrics of the comparison."""
        totals = Totals(metrics.SHADOWED, lambda: {(outcome,): count for outcome, count in self.outcomes.items()})
        return [totals, self._overlap, self._order]

    async def send(self, body: bytes, *, call: Call, within_s: float, decode: Callable[[bytes], T]) -> HopAnswer[T]:
        """Post *body* to rank_items; see `Hop`."""
        answer = await self._hop.send(body, call=call, within_s=within_s, decode=decode)
        if self._draw() < self._share:
            self._copy(body, call, answer.value, decode)
        return answer

    def _copy(self, body: bytes, call: Call, served: Any, decode: Callable[[bytes], Any]) -> None:
        if len(self._copies) >= MOST_IN_FLIGHT:
            self.outcomes["dropped"] += 1
            return
        copy = asyncio.create_task(self._compare(body, call, served, decode))
        self._copies.add(copy)
        copy.add_done_callback(self._copies.discard)

    async def aclose(self) -> None:
        """Cancel the copies in flight."""
        for copy in self._copies:
            copy.cancel()
        await asyncio.gather(*self._copies, return_exceptions=True)

    async def _compare(
        self, body: bytes, call: Call, served: Sequence[Ranked], decode: Callable[[bytes], Sequence[Ranked]]
    ) -> None:
        await asyncio.sleep(_LATER_S)
        deadline = Deadline.after(_WITHIN_S)
        # The copy gets its own deadline and receipt. The trace of the caller does not show it.
        own = msgspec.structs.replace(
            call, deadline=deadline, receipt=Receipt(deadline.at - _WITHIN_S), span=PassOn(())
        )
        try:
            answer = await self._candidate.send(body, call=own, within_s=_WITHIN_S, decode=decode)
            for one, other in zip(served, answer.value, strict=True):
                self.compare_lists(one, other)
        except (ServingError, msgspec.DecodeError):
            self.outcomes["failed"] += 1
        else:
            self.outcomes["compared"] += 1

    def compare_lists(self, served: Ranked, shadow: Ranked) -> None:
        """Count how far two lists agree, if both exist."""
        if not (served.items and shadow.items):
            return
        one, other = (
            [item.item_id for item in decode_items(ranked.items)[:_COMPARED_ITEMS]] for ranked in (served, shadow)
        )
        if not one:
            return
        self._overlap.observe(overlap(one, other))
        if (agreement := correlation(one, other)) is not None:
            self._order.observe((agreement + 1) / 2)
