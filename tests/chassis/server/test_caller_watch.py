import asyncio

import pytest

from chassis.server import caller_watch
from chassis.server.caller_watch import CallerWatch, ClientDisconnectedError, WatchStarter
from tests.virtual_time import on_virtual_time


@pytest.fixture(autouse=True)
def watch_immediately(monkeypatch):
    monkeypatch.setattr(caller_watch, "WATCH_AFTER_S", 0.0)


async def never() -> object:
    await asyncio.Event().wait()
    raise AssertionError


async def disconnect() -> object:
    return {"type": "http.disconnect"}


@on_virtual_time
async def test_work_completes_while_the_caller_stays(clock):
    """While the caller stays connected the block runs to its end, and its errors pass through."""
    finished = []
    with CallerWatch(never, within_s=5, starter=WatchStarter()):
        await clock.advance(4.9)
        finished.append(True)
    assert finished
    with pytest.raises(KeyError), CallerWatch(never, within_s=5, starter=WatchStarter()):
        raise KeyError


@on_virtual_time
async def test_work_is_cancelled_when_the_caller_disconnects():
    """A disconnect cancels the block, which then raises ClientDisconnectedError."""
    with pytest.raises(ClientDisconnectedError), CallerWatch(disconnect, within_s=5, starter=WatchStarter()):
        await asyncio.Event().wait()
    await asyncio.sleep(0)  # the cancellation was consumed, not left pending


@on_virtual_time
async def test_other_messages_do_not_count_as_a_disconnect(clock):
    """The block ignores a message that is not a disconnect, and is not cancelled before its deadline."""
    received = []

    async def more() -> object:
        received.append("http.request")
        return {"type": "http.request"}

    with CallerWatch(more, within_s=5, starter=WatchStarter()):
        await clock.advance(4.9)
    assert received == ["http.request"]


@on_virtual_time
async def test_other_cancellations_stay_cancellations(clock):
    """A cancellation from elsewhere is not reported as a disconnect."""

    async def work() -> None:
        with CallerWatch(never, within_s=5, starter=WatchStarter()):
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await clock.advance(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@on_virtual_time
async def test_finished_work_is_not_cancelled(clock):
    """A disconnect that is noticed as the block ends does not cancel the block."""
    with CallerWatch(disconnect, within_s=5, starter=WatchStarter()):
        pass
    await clock.advance(10)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@on_virtual_time
@pytest.mark.parametrize("watch_after_s", [0.0, 0.02])
@pytest.mark.parametrize("within_s", [0.04, 0.01, 0.0, -1.0])
async def test_work_is_cancelled_at_its_deadline(monkeypatch, clock, watch_after_s, within_s):
    """A block that exceeds its time is cancelled, whether the watcher has started by then or not."""
    monkeypatch.setattr(caller_watch, "WATCH_AFTER_S", watch_after_s)
    began = clock.now()
    with pytest.raises(TimeoutError), CallerWatch(never, within_s=within_s, starter=WatchStarter()):
        await asyncio.Event().wait()
    assert clock.now() - began == pytest.approx(max(0.0, within_s), abs=1e-3)
    await asyncio.sleep(0)  # the cancellation was consumed, not left pending


@on_virtual_time
async def test_a_block_is_cancelled_for_one_reason_only(clock):
    """A disconnect at the deadline raises one of the two errors and leaves no further cancellation pending."""
    with (
        pytest.raises((ClientDisconnectedError, TimeoutError)),
        CallerWatch(disconnect, within_s=0.0, starter=WatchStarter()),
    ):
        await asyncio.Event().wait()
    await clock.advance(0.01)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@on_virtual_time
async def test_only_long_blocks_are_watched(monkeypatch, clock):
    """The starter watches the blocks that outlast the delay, in the order of arrival, and stops when none is left."""
    monkeypatch.setattr(caller_watch, "WATCH_AFTER_S", 0.02)
    starter, watched = WatchStarter(), []

    async def block(name: str, seconds: float) -> None:
        async def receive() -> object:
            watched.append(name)
            return await never()

        with CallerWatch(receive, within_s=5, starter=starter):
            await clock.advance(seconds)

    async with asyncio.TaskGroup() as group:
        for name, seconds in (("long", 0.2), ("short", 0.001), ("also long", 0.2)):
            group.create_task(block(name, seconds))
        await clock.advance(0.01)
        group.create_task(block("later", 0.2))
        await clock.advance(0.1)
        assert watched == ["long", "also long", "later"]
    await clock.advance(0.03)
    watched.clear()
    await block("again", 0.1)
    assert watched == ["again"]


def test_rounds_survive_the_end_of_an_event_loop(monkeypatch):
    """A loop that ends in the middle of a round does not stop the blocks of the next loop from being watched."""
    starter = WatchStarter()

    async def block() -> None:
        with CallerWatch(disconnect, within_s=5, starter=starter):
            await asyncio.Event().wait()

    async def leave_a_block_running() -> None:
        behind = asyncio.create_task(block())
        await asyncio.sleep(0)
        assert not behind.done()

    monkeypatch.setattr(caller_watch, "WATCH_AFTER_S", 0.01)
    for _ in range(2):
        asyncio.run(leave_a_block_running())
        with pytest.raises(ClientDisconnectedError):
            asyncio.run(asyncio.wait_for(block(), timeout=60))
