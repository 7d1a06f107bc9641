"""Work that an instance repeats in the background while it serves."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

_AFTER_ERROR_S = 1.0

log = logging.getLogger("chassis")


@asynccontextmanager
async def repeating(step: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """
    Call *step* again and again until the block ends. The step itself waits between its actions.

    An unexpected error of a step is logged, and the next step follows after a second. Without this rule, the work would
    end unnoticed while the process serves.
    """

    async def repeat() -> None:
        while True:
            try:
                await step()
            except Exception:
                log.exception("background_step_failed", extra={"step": step.__qualname__})
                await asyncio.sleep(_AFTER_ERROR_S)

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
