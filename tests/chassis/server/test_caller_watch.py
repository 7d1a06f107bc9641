import asyncio
import time

import pytest

from chassis.server import caller_watch
from chassis.server.caller_watch import CallerWatch, ClientDisconnectedError, WatchStarter


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(caller_watch, "WATCH_AFTER_S", 0.0)


async def never() -> object:
    await asyncio.Event().wait()
    raise AssertionError


async def gone() -> object:
    return {"type": "http.disconnect"}


async def test_a_caller_that_stays_changes_nothing():
    """While the caller is there the block runs to its end, and its errors pass through."""
    with CallerWatch(never, within_s=5, starter=WatchStarter()):
        await asyncio.sleep(0.01)
    with pytest.raises(KeyError), CallerWatch(never, within_s=5, starter=WatchStarter()):
        raise KeyError


async def test_work_ends_when_the_caller_leaves():
    """A disconnect cancels the block, which then says that nobody is there."""
    with pytest.raises(ClientDisconnectedError), CallerWatch(gone, within_s=5, starter=WatchStarter()):
        await asyncio.Event().wait()
    await asyncio.sleep(0)  # the cancellation was used up, not left behind


async def test_other_messages_are_not_a_departure():
    """A stray message is ignored."""

    async def more() -> object:
        return {"type": "http.request"}

    with CallerWatch(more, within_s=5, starter=WatchStarter()):
        await asyncio.sleep(0.01)


async def test_other_cancellations_stay_cancellations():
    """A cancellation from elsewhere is not mistaken for a disconnect."""

    async def work() -> None:
        with CallerWatch(never, within_s=5, starter=WatchStarter()):
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_work_that_is_over_is_not_cancelled():
    """A disconnect noticed in the same moment as the end of the work does not undo it."""
    with CallerWatch(gone, within_s=5, starter=WatchStarter()):
        pass
    await asyncio.sleep(0.01)


@pytest.mark.parametrize("watch_after_s", [0.0, 0.02])
@pytest.mark.parametrize("within_s", [0.04, 0.01, 0.0, -1.0])
async def test_work_ends_with_its_time(monkeypatch, watch_after_s, within_s):
    """A block that takes longer is cancelled, be its time shorter or longer than the wait for the watcher."""
    monkeypatch.setattr(caller_watch, "WATCH_AFTER_S", watch_after_s)
    began = time.monotonic()
    with pytest.raises(TimeoutError), CallerWatch(never, within_s=within_s, starter=WatchStarter()):
        await asyncio.Event().wait()
    assert within_s - 0.002 <= time.monotonic() - began < 0.5
    await asyncio.sleep(0)


async def test_the_first_reason_counts():
    """Who leaves while the time ends is one of both, and nothing is left to cancel somebody else."""
    with (
        pytest.raises((ClientDisconnectedError, TimeoutError)),
        CallerWatch(gone, within_s=0.0, starter=WatchStarter()),
    ):
        await asyncio.Event().wait()
    await asyncio.sleep(0.01)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_only_blocks_that_last_are_watched(monkeypatch):
    """WatchStarter watch what is there for a while, in the order it came, and stop when nobody is left."""
    monkeypatch.setattr(caller_watch, "WATCH_AFTER_S", 0.02)
    starter, watched = WatchStarter(), []

    async def block(name: str, seconds: float) -> None:
        async def receive() -> object:
            watched.append(name)
            return await never()

        with CallerWatch(receive, within_s=5, starter=starter):
            await asyncio.sleep(seconds)

    async with asyncio.TaskGroup() as group:
        for name, seconds in (("long", 0.2), ("short", 0.001), ("also long", 0.2)):
            group.create_task(block(name, seconds))
        await asyncio.sleep(0.01)
        group.create_task(block("later", 0.2))
        await asyncio.sleep(0.1)
        assert watched == ["long", "also long", "later"]
    await asyncio.sleep(0.03)
    watched.clear()
    await block("again", 0.1)
    assert watched == ["again"]


def test_rounds_outlive_an_event_loop(monkeypatch):
    """A loop that ended in the middle of a round does not keep the next one's blocks from being watched."""
    starter = WatchStarter()

    async def block() -> None:
        with CallerWatch(gone, within_s=5, starter=starter):
            await asyncio.Event().wait()

    async def leave_one_behind() -> None:
        behind = asyncio.create_task(block())
        await asyncio.sleep(0)
        assert not behind.done()

    monkeypatch.setattr(caller_watch, "WATCH_AFTER_S", 0.01)
    for _ in range(2):
        asyncio.run(leave_one_behind())
        with pytest.raises(ClientDisconnectedError):
            asyncio.run(asyncio.wait_for(block(), timeout=2))
