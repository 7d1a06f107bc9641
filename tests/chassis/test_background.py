"""Work in the background goes on after an unexpected error."""

import asyncio

from chassis.background import repeating
from tests.virtual_time import on_virtual_time


@on_virtual_time
async def test_an_unexpected_error_is_logged_and_the_work_goes_on(clock, caplog):
    """The next step follows the failed one after a second, and none follows the end of the block."""
    steps: list[int] = []

    async def step() -> None:
        steps.append(len(steps))
        if len(steps) == 1:
            raise ValueError("unexpected")
        await asyncio.sleep(10)

    async with repeating(step):
        await clock.advance(0.9)
        assert steps == [0]
        await clock.advance(0.2)
        assert steps == [0, 1]
    await clock.advance(20)
    assert steps == [0, 1]
    assert [(record.msg, record.exc_info is not None) for record in caplog.records] == [
        ("background_step_failed", True)
    ]
