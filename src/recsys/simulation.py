"""
Pretended cost, for showing how the pipeline scales with a model that is slower than the demo's.

Switched on by configuration only (`SIMULATED_LATENCY_S`); the answers stay what they are.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from chassis.call import Call, Handler, Reply

Q = TypeVar("Q")
R = TypeVar("R")


def slow_handler(handler: Handler, seconds: float) -> Handler:
    """Return *handler*, each call of which takes *seconds* longer; itself for none."""
    if not seconds:
        return handler

    async def handle(call: Call) -> Reply:
        await asyncio.sleep(seconds)
        return await handler(call)

    return handle


def slow_batches(rank: Callable[[Sequence[Q]], list[R]], seconds: float) -> Callable[[Sequence[Q]], list[R]]:
    """Return *rank*, each batch of which takes *seconds* longer; itself for none."""
    if not seconds:
        return rank

    def rank_slowly(queries: Sequence[Q]) -> list[R]:
        time.sleep(seconds)
        return rank(queries)

    return rank_slowly
