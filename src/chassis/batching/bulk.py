"""
The way of a large request into the batcher: item by item, so that other callers keep their places in the queue.

A request that fits into one batch is queued immediately, like as many single requests. A larger request keeps a window
of its items in the queue, and adds an item whenever one is answered. At most half of the queue belongs to large
requests, served in the order of their arrival: the other half is free for small ones. The slot always has an item to process.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Generic, TypeVar

from chassis.batching.batcher import Batcher, BatchFacts
from chassis.wire.problems import OverloadedError, ServingError

Q = TypeVar("Q")
R = TypeVar("R")

ItemOutcome = tuple[R, BatchFacts] | ServingError

# Each waiting request holds its decoded body, so their number bounds the memory.
MAX_LARGE_WAITING = 16


class BulkSubmitter(Generic[Q, R]):
    """
    Submits the items of one request to a batcher.

    Args:
        batcher: The batcher that all requests share.
    """

    def __init__(self, batcher: Batcher[Q, R]) -> None:
        limits = batcher.limits
        self._batcher = batcher
        # Two batches of items: one runs, and the next one is full when the slot becomes free.
        self._window = max(1, min(2 * limits.max_batch_size, limits.max_queue_size // 4))
        self._turns = asyncio.Semaphore(max(1, limits.max_queue_size // 2 // self._window))
        self._large_waiting = 0

    async def rank(
        self, queries: Sequence[Q | ServingError], *, deadline: float
    ) -> AsyncGenerator[ItemOutcome[R], None]:
        """
        Yield the outcome of each query, in order. Errors among *queries* are passed on in their places.

        An item is refused only while the queue is full of other requests' items. A large request is also refused when
        MAX_LARGE_WAITING others wait. A reader that stops early closes the generator (`contextlib.aclosing`); its
        unanswered items then leave the queue.

        Cost: for requests up to half a window, the cost of submitting the items one by one.
        """
        large = len(queries) > self._window // 2
        if large and self._large_waiting >= MAX_LARGE_WAITING:
            for query in queries:
                yield query if isinstance(query, ServingError) else self._batcher.refuse()
            return
        async with self._turn() if large else nullcontext():
            asked: deque[asyncio.Future[tuple[R, BatchFacts]] | ServingError] = deque()
            try:
                for query in queries:
                    while asked and (len(asked) >= self._window or not self._batcher.has_room):
                        yield await _outcome(asked.popleft())
                    asked.append(query if isinstance(query, ServingError) else self._submit(query, deadline))
                while asked:
                    yield await _outcome(asked.popleft())
            finally:
                for each in asked:
                    _leave(each)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        self._large_waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._large_waiting -= 1
        try:
            yield
        finally:
            self._turns.release()

    def _submit(self, query: Q, deadline: float) -> asyncio.Future[tuple[R, BatchFacts]] | ServingError:
        try:
            return self._batcher.submit(query, deadline=deadline)
        except OverloadedError as error:
            return error


async def _outcome(asked: asyncio.Future[tuple[R, BatchFacts]] | ServingError) -> ItemOutcome[R]:
    if isinstance(asked, ServingError):
        return asked
    try:
        return await asked
    except ServingError as error:
        return error


def _leave(asked: asyncio.Future[tuple[R, BatchFacts]] | ServingError) -> None:
    # An error that was set before the cancellation must be read, or asyncio logs it as never retrieved.
    if isinstance(asked, asyncio.Future) and not asked.cancel():
        asked.exception()
