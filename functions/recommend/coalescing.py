"""
Calls to the same hop that are due at the same time go as one request.

What a hop costs, engine and parsing on both sides, it costs per request, not per user in it. So while `slots` calls
are in flight further ones queue, and what waits when one returns goes together through the hop's batch door. Calls
made in the same turn of the event loop go together at once. A lone call goes alone, through the single door, and
waits for nothing.
"""

import asyncio
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from recsys.batching import BatchLimits, BatchQueue, Cut, Entry
from recsys.contracts.problems import DeadlineExceededError, OverloadedError, ServingError
from recsys.serving.call import Call, Deadline
from recsys.serving.client import HopAnswer

Q = TypeVar("Q")
A = TypeVar("A")
Q_contra = TypeVar("Q_contra", contravariant=True)
A_co = TypeVar("A_co", covariant=True)


class SendMany(Protocol[Q_contra, A]):
    """Sends several queries as one request and returns as many answers."""

    def __call__(self, queries: Sequence[Q_contra], *, call: Call, within_s: float) -> Awaitable[HopAnswer[list[A]]]:
        """Raise as `Hop.send`."""
        ...


@dataclass(frozen=True)
class _Waiting(Generic[Q, A]):
    query: Q
    call: Call
    answer: "asyncio.Future[HopAnswer[list[A]]]"


class Coalescer(Generic[Q, A]):
    """
    Sends single queries together.

    Args:
        send: Sends several as one.
        limits: `max_batch_size` queries in a request, `slots` requests in flight, `max_queue_size` queries waiting.
    """

    def __init__(self, send: SendMany[Q, A], *, limits: BatchLimits) -> None:
        self._send = send
        self._queue: BatchQueue[_Waiting[Q, A]] = BatchQueue(limits, abandoned=lambda waiting: waiting.answer.done())
        self._look_due = False
        self._sending: dict[asyncio.Task[None], Cut[_Waiting[Q, A]]] = {}

    async def ask(self, query: Q, *, call: Call, within_s: float) -> HopAnswer[list[A]]:
        """
        Return the answer to *query*, a list of one.

        Raises:
            OverloadedError: too many are waiting already.
            DependencyError, DeadlineExceededError: as `Hop.send`.
        """
        loop = asyncio.get_running_loop()
        waiting: _Waiting[Q, A] = _Waiting(query, call, loop.create_future())
        now = time.monotonic()
        if not self._queue.put(Entry(waiting, now, now + min(within_s, call.deadline.left_s()))):
            raise OverloadedError(retry_after_s=1.0)
        self._look_soon()
        try:
            async with asyncio.timeout(within_s):
                return await waiting.answer
        except TimeoutError as error:
            raise DeadlineExceededError from error
        finally:
            if waiting.answer.cancelled():
                self._drop_abandoned()

    def _drop_abandoned(self) -> None:
        """Give up requests that nobody waits for any more."""
        for task, cut in self._sending.items():
            if all(entry.item.answer.done() for entry in cut.entries):
                task.cancel()

    def _look_soon(self) -> None:
        if not self._look_due and self._queue.has_slot:
            self._look_due = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self._look_due = False
        decision = self._queue.decide(time.monotonic(), arriving=0)
        for entry in decision.expired:
            _settle(entry, DeadlineExceededError())
        if decision.cut:
            task = asyncio.get_running_loop().create_task(self._carry(decision.cut))
            self._sending[task] = decision.cut
            task.add_done_callback(self._sending.pop)
            self._look_soon()

    async def _carry(self, cut: Cut[_Waiting[Q, A]]) -> None:
        # The request lives as long as the most patient of those who wait for it.
        ends = max(entry.deadline for entry in cut.entries)
        leader = cut.entries[0].item.call
        call = Call(b"", leader.headers, leader.request_id, leader.receipt, Deadline(ends))
        try:
            answer = await self._send(
                [entry.item.query for entry in cut.entries], call=call, within_s=ends - time.monotonic()
            )
        except ServingError as error:
            for entry in cut.entries:
                _settle(entry, error)
        else:
            for entry, value in zip(cut.entries, answer.value, strict=True):
                _settle(entry, HopAnswer([value], answer.spent_s, answer.durations, answer.facts))
        finally:
            self._queue.free_slot()
            if len(self._queue):
                self._look_soon()


def _settle(entry: Entry[_Waiting[Q, A]], outcome: HopAnswer[list[A]] | ServingError) -> None:
    answer = entry.item.answer
    if answer.done():
        return
    if isinstance(outcome, ServingError):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)
