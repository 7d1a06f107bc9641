"""
Asynchronous work done for many at the price of one: a request to a hop, a transaction of a store.

While every slot is taken further queries wait, and what waits when one frees goes together (`chassis.batching.queue`).
Queries of the same turn of the event loop go together at once. A lone query goes alone and waits for nothing: where the
one before met nobody, not even for the turn, and in its caller's own task.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from msgspec import Struct

from chassis.batching.queue import BatchLimits, BatchQueue, Cut, Entry
from chassis.wire.problems import DeadlineExceededError, OverloadedError

Q = TypeVar("Q")
R = TypeVar("R")

Run = Callable[[Sequence[Q], float], Awaitable[Sequence[R]]]


class _Waiting(Struct, Generic[Q, R], frozen=True):
    query: Q
    result: "asyncio.Future[R]"


class Grouper(Generic[Q, R]):
    """
    Runs single queries together.

    Args:
        run: Queries and the seconds there are, in; as many results in the same order, or one error for all, out.
        limits: `max_batch_size` queries in a group, `slots` groups under way, `max_queue_size` queries waiting.
    """

    def __init__(self, run: Run[Q, R], *, limits: BatchLimits) -> None:
        self._run = run
        self._queue: BatchQueue[_Waiting[Q, R]] = BatchQueue(limits, abandoned=lambda waiting: waiting.result.done())
        self._look_due = False
        self._lonely = False
        self._under_way: dict[asyncio.Task[None], Cut[_Waiting[Q, R]]] = {}

    @property
    def waiting(self) -> int:
        """How many wait for a group under way."""
        return len(self._queue)

    async def ask(self, query: Q, *, within_s: float) -> R:
        """
        Return the result for *query*.

        A group lives as long as the most patient of those in it, and ends when the last of them has left.

        Raises:
            OverloadedError: too many are waiting already.
            DeadlineExceededError: no result within *within_s*.
            ServingError: what *run* raised.
        """
        if self._lonely and self._queue.is_idle:
            return await self._ask_alone(query, within_s)
        self._lonely = False
        waiting: _Waiting[Q, R] = _Waiting(query, asyncio.get_running_loop().create_future())
        now = time.monotonic()
        if not self._queue.put(Entry(waiting, now, now + within_s)):
            raise OverloadedError(retry_after_s=1.0)
        self._look_soon()
        try:
            async with asyncio.timeout(within_s):
                return await waiting.result
        except TimeoutError as error:
            raise DeadlineExceededError from error
        finally:
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

    def _free_slot(self) -> None:
        self._queue.free_slot()
        if len(self._queue):
            self._look_soon()

    def _drop_abandoned(self) -> None:
        for task, cut in self._under_way.items():
            if all(entry.item.result.done() for entry in cut.entries):
                task.cancel()

    def _look_soon(self) -> None:
        if not self._look_due and self._queue.has_slot:
            self._look_due = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self._look_due = False
        decision = self._queue.decide(time.monotonic(), arriving=0)
        for entry in decision.expired:
            _fail(entry, DeadlineExceededError())
        if decision.cut:
            self._lonely = len(decision.cut.entries) == 1 and not self._under_way
            task = asyncio.get_running_loop().create_task(self._carry(decision.cut))
            self._under_way[task] = decision.cut
            task.add_done_callback(self._under_way.pop)
            self._look_soon()

    async def _carry(self, cut: Cut[_Waiting[Q, R]]) -> None:
        ends = max(entry.deadline for entry in cut.entries)
        try:
            queries = [entry.item.query for entry in cut.entries]
            answered = list(zip(cut.entries, await self._run(queries, ends - time.monotonic()), strict=True))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told to those who wait, and by them to their callers
            for entry in cut.entries:
                _fail(entry, error)
        else:
            for entry, result in answered:
                if not entry.item.result.done():
                    entry.item.result.set_result(result)
        finally:
            self._free_slot()


def _fail(entry: Entry[_Waiting[Q, R]], error: Exception) -> None:
    if not entry.item.result.done():
        entry.item.result.set_exception(error)
