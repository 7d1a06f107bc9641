"""
Sends calls to the same hop that are due at the same time as one request.

Parsing and framing cost CPU per request, however many users the request holds (docs/adr/0008-coalescing.md).
"""

import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, Protocol, TypeVar

from msgspec import Struct

from chassis.batching.async_batcher import AsyncBatcher
from chassis.batching.queue import BatchLimits
from chassis.call import Call, Deadline
from chassis.hop.client import HopAnswer
from chassis.receipt import Receipt
from chassis.telemetry.tracing import Attributes, begin_shared

Q = TypeVar("Q")
A = TypeVar("A")
_SHARED = "shared-call"
# A model that takes no longer than this for a batch is quick. One instance then ranks 1,600 users a second in groups of
# 16, and one recommend cannot ask for more.
_QUICK_S = 0.010
# The share of the latest batch in the mean of the model's time.
_LATEST = 1 / 8
Q_contra = TypeVar("Q_contra", contravariant=True)


class SendMany(Protocol[Q_contra, A]):
    """Sends several queries as one request and returns as many answers."""

    def __call__(self, queries: Sequence[Q_contra], *, call: Call, within_s: float) -> Awaitable[HopAnswer[list[A]]]:
        """Raise as `Hop.send`."""
        ...


class _Asked(Struct, Generic[Q], frozen=True):
    query: Q
    call: Call


class CallBatcher(Generic[Q, A]):
    """
    A `SendMany` that joins calls with a single query each; calls with several queries pass through unchanged.

    Args:
        send: Sends several queries as one request.
        limits: `max_batch_size` queries in a request, `slots` requests in flight, `max_queue_size` queries waiting.
        quick: Other limits for the time in which the hop's model is quick, by the receipts of its answers.
        fits: Tells whether a query may share a request.
    """

    def __init__(
        self,
        send: SendMany[Q, A],
        *,
        limits: BatchLimits,
        quick: BatchLimits | None = None,
        fits: Callable[[Q], bool] = lambda _: True,
    ) -> None:
        self._send = send
        self._fits = fits
        self._limits = limits
        self._quick = quick
        self._is_quick = False
        self._model_s = 2 * _QUICK_S
        self._batcher: AsyncBatcher[_Asked[Q], HopAnswer[list[A]]] = AsyncBatcher(self._send_batch, limits=limits)

    @property
    def waiting(self) -> int:
        """The number of queries that wait for a request in flight."""
        return self._batcher.waiting

    async def __call__(self, queries: Sequence[Q], *, call: Call, within_s: float) -> HopAnswer[list[A]]:
        """
        Return the answers to *queries*.

        Raises:
            OverloadedError: the queue is full.
            DependencyError, DeadlineExceededError: as `Hop.send`.
        """
        if len(queries) != 1 or not self._fits(queries[0]):
            return await self._send(queries, call=call, within_s=within_s)
        asked = _Asked(queries[0], call)
        return await self._batcher.ask(asked, within_s=min(within_s, call.deadline.left_s()))

    async def _send_batch(self, asked: Sequence[_Asked[Q]], within_s: float) -> list[HopAnswer[list[A]]]:
        if len(asked) == 1:
            return [await self._send_followed([asked[0].query], call=asked[0].call, within_s=within_s)]
        began = time.monotonic()
        call = _shared_call([each.call for each in asked], began, within_s)
        status = 0
        try:
            answer = await self._send_followed([each.query for each in asked], call=call, within_s=within_s)
            status = 200
        finally:
            call.span.end(status=status)
            facts: Attributes = {"group.size": len(asked), "group.trace_id": call.span.trace_id or ""}
            for each in asked:
                each.call.span.record(_SHARED, began=began, ended=time.monotonic(), attributes=facts)
        return [HopAnswer([value], answer.spent_s, answer.durations, answer.facts) for value in answer.value]

    async def _send_followed(self, queries: Sequence[Q], *, call: Call, within_s: float) -> HopAnswer[list[A]]:
        """Send *queries*, and choose the limits by the time that the hop's model took for the latest batches."""
        answer = await self._send(queries, call=call, within_s=within_s)
        model_s = answer.durations.get("model")
        if self._quick and model_s is not None:
            self._model_s += (model_s - self._model_s) * _LATEST
            if (is_quick := self._model_s <= _QUICK_S) != self._is_quick:
                self._is_quick = is_quick
                self._batcher.limit(self._quick if is_quick else self._limits)
        return answer


def _shared_call(calls: Sequence[Call], began: float, within_s: float) -> Call:
    """
    Return the call on behalf of all of *calls*.

    The request id and the trace are new. Those of one caller would make the other callers depend on its headers.
    """
    span = begin_shared(_SHARED, [call.span for call in calls])
    return Call(b"", (), os.urandom(8).hex(), Receipt(began), Deadline(began + within_s), span)
