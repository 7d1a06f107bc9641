"""
Runs asynchronous work in batches: several queries share one request to a hop or one transaction of a store.

While every slot is taken, further queries wait. When a slot becomes free, the waiting queries form a batch
(`chassis.batching.queue`). Queries of the same turn of the event loop form a batch immediately. A query never waits for
later queries: if the previous query was alone, the next one runs in its caller's task, without waiting for the end of
the turn.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from msgspec import Struct

from chassis.batching.queue import BatchLimits, BatchQueue, Cut, QueueEntry
from chassis.wire.problems import DeadlineExceededError, OverloadedError

Q = TypeVar("Q")
R = TypeVar("R")

RunBatch = Callable[[Sequence[Q], float], Awaitable[Sequence[R]]]


class _Waiting(Struct, Generic[Q, R], frozen=True):
    query: Q
    result: "asyncio.Future[R]"


class AsyncBatcher(Generic[Q, R]):
    """
    Runs single queries in batches.

    Args:
        run: Takes queries and the seconds left; returns one result for each, in order, or raises one error for all.
        limits: `max_batch_size` queries in a batch, `slots` batches running, `max_queue_size` queries waiting.
    """

    def __init__(self, run: RunBatch[Q, R], *, limits: BatchLimits) -> None:
        self._run = run
        self._queue: BatchQueue[_Waiting[Q, R]] = BatchQueue(limits, abandoned=lambda waiting: waiting.result.done())
        self._cut_due = False
        self._last_was_alone = False
        self._running: dict[asyncio.Task[None], Cut[_Waiting[Q, R]]] = {}

    @property
    def waiting(self) -> int:
        """The number of queries that wait for a slot."""
        return len(self._queue)

    def limit(self, limits: BatchLimits) -> None:
        """Set other *limits*; batches that run keep their slots."""
        self._queue.limits = limits
        if len(self._queue):
            self._cut_soon()

    async def ask(self, query: Q, *, within_s: float) -> R:
        """
        Return the result for *query*.

        A batch runs until the latest deadline of its queries. It is cancelled when all its callers have left.

        Raises:
            OverloadedError: the queue is full.
            DeadlineExceededError: there was no result within *within_s*.
            ServingError: what *run* raised.
        """
        if self._last_was_alone and self._queue.is_idle:
            return await self._ask_alone(query, within_s)
        self._last_was_alone = False
        loop = asyncio.get_running_loop()
        waiting: _Waiting[Q, R] = _Waiting(query, loop.create_future())
        now = time.monotonic()
        if not self._queue.put(QueueEntry(waiting, now, now + within_s)):
            raise OverloadedError(retry_after_s=1.0)
        self._cut_soon()
        # A timer that fails the result costs a third of what asyncio.timeout costs.
        timer = loop.call_later(within_s, self._expire, waiting.result)
        try:
            return await waiting.result
        finally:
            timer.cancel()
            if waiting.result.cancelled():
                self._drop_abandoned()

    async def _ask_alone(self, query: Q, within_s: float) -> R:
        if within_s <= 0:
            raise DeadlineExceededError
        self._queue.take_slot()
        try:
            async with asyncio.timeout(within_s):
                (result,) = await self._run([query], within_s)
        except TimeoutError as error:
            raise DeadlineExceededError from error
        finally:
            self._free_slot()
        return result

    def _expire(self, result: "asyncio.Future[R]") -> None:
        if not result.done():
            result.set_exception(DeadlineExceededError())
            self._drop_abandoned()

    def _free_slot(self) -> None:
        self._queue.free_slot()
        if len(self._queue):
            self._cut_soon()

    def _drop_abandoned(self) -> None:
        for task, cut in self._running.items():
            if all(entry.item.result.done() for entry in cut.entries):
                # A task that is cancelled before its first step, which is due in this turn, would not free its slot.
                asyncio.get_running_loop().call_soon(task.cancel)

    def _cut_soon(self) -> None:
        if not self._cut_due and self._queue.has_slot:
            self._cut_due = True
            asyncio.get_running_loop().call_soon(self._cut)

    def _cut(self) -> None:
        self._cut_due = False
        decision = self._queue.decide(time.monotonic(), arriving=0)
        for entry in decision.expired:
            _fail(entry, DeadlineExceededError())
        if decision.cut:
            self._last_was_alone = len(decision.cut.entries) == 1 and not self._running
            task = asyncio.get_running_loop().create_task(self._run_batch(decision.cut))
            self._running[task] = decision.cut
            task.add_done_callback(self._running.pop)
            self._cut_soon()

    async def _run_batch(self, cut: Cut[_Waiting[Q, R]]) -> None:
        ends = max(entry.deadline for entry in cut.entries)
        try:
            queries = [entry.item.query for entry in cut.entries]
            answered = list(zip(cut.entries, await self._run(queries, ends - time.monotonic()), strict=True))
        except Exception as error:  # noqa: BLE001 - each caller of the batch raises the error
            for entry in cut.entries:
                _fail(entry, error)
        else:
            for entry, result in answered:
                if not entry.item.result.done():
                    entry.item.result.set_result(result)
        finally:
            self._free_slot()


def _fail(entry: QueueEntry[_Waiting[Q, R]], error: Exception) -> None:
    if not entry.item.result.done():
        entry.item.result.set_exception(error)
