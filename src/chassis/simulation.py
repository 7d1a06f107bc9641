"""
Simulate a slower model than the demo's, to show how the pipeline scales.

The setting `SIMULATED_LATENCY_S` switches the delay on. The answers do not change.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from chassis.call import Call, Handler, Reply

Q = TypeVar("Q")
R = TypeVar("R")


def slow_handler(handler: Handler, seconds: float) -> Handler:
    """Return *handler* with a delay of *seconds* in each call; *handler* itself if *seconds* is 0."""
    if not seconds:
        return handler

    async def handle(call: Call) -> Reply:
        await asyncio.sleep(seconds)
        return await handler(call)

    return handle


def slow_batches(rank: Callable[[Sequence[Q]], list[R]], seconds: float) -> Callable[[Sequence[Q]], list[R]]:
    """Return *rank* with a delay of *seconds* in each batch; *rank* itself if *seconds* is 0."""
    if not seconds:
        return rank

    def rank_slowly(queries: Sequence[Q]) -> list[R]:
        time.sleep(seconds)
        return rank(queries)

    return rank_slowly
