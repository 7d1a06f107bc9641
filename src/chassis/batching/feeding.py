"""
The batch door's way into the queue: large requests bit by bit, so that they do not take everybody else's places.

What one batch can hold is queued at once, as as many single requests would be. A larger request has a window of its
items in the queue and adds to it as they are answered. As many of these as half of the queue has room for are fed at a
time, in the order they came: the other half is always there for the rest, and the slot never runs dry.
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

Outcome = tuple[R, BatchFacts] | ServingError

# Each holds a body, decoded: without a bound their callers' patience alone would decide how much memory they take.
MAX_LARGE_WAITING = 16


class Feeder(Generic[Q, R]):
    """
    Queues what came as one request.

    Args:
        batcher: Where to.
    """

    def __init__(self, batcher: Batcher[Q, R]) -> None:
        limits = batcher.limits
        self._batcher = batcher
        # Two batches of each: one runs, and the next one is full when the slot frees.
        self._window = max(1, min(2 * limits.max_batch_size, limits.max_queue_size // 4))
        self._turns = asyncio.Semaphore(max(1, limits.max_queue_size // 2 // self._window))
        self._large_waiting = 0

    async def rank(self, queries: Sequence[Q | ServingError], *, deadline: float) -> AsyncGenerator[Outcome[R], None]:
        """
        Yield what became of each query, in order; errors among *queries* are passed on in their places.

        An item is refused only while the queue is full of others', a large request also when too many wait already. To
        be closed by whoever does not read to the end (`contextlib.aclosing`): what is not answered yet leaves the queue.

        Cost: for requests no larger than half a window, that of submitting one by one.
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


async def _outcome(asked: asyncio.Future[tuple[R, BatchFacts]] | ServingError) -> Outcome[R]:
    if isinstance(asked, ServingError):
        return asked
    try:
        return await asked
    except ServingError as error:
        return error


def _leave(asked: asyncio.Future[tuple[R, BatchFacts]] | ServingError) -> None:
    # An error that came meanwhile has to be looked at, or asyncio logs it as one that nobody knows of.
    if isinstance(asked, asyncio.Future) and not asked.cancel():
        asked.exception()
