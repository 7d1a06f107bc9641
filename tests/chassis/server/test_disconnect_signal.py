"""A watch without a task: the connection calls it back."""

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from chassis.server import caller_watch
from chassis.server.caller_watch import CallerWatch, ClientDisconnectedError, DisconnectSignal, WatchStarter


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


async def wait_for(signal: DisconnectSignal) -> None:
    with CallerWatch(signal, within_s=60, starter=WatchStarter()) as watch:
        watch.start()
        await asyncio.Event().wait()


async def test_a_signal_cancels_the_block():
    """A disconnect during the block cancels it, and no task waits for the disconnect."""
    signal, before = DisconnectSignal(), asyncio.all_tasks()
    waiting = asyncio.create_task(wait_for(signal))
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {*before, waiting}
    signal.set()
    with pytest.raises(ClientDisconnectedError):
        await waiting


async def test_an_earlier_signal_cancels_the_block_when_the_watch_starts():
    """A disconnect before the start of the watch is not lost."""
    signal = DisconnectSignal()
    signal.set()
    with pytest.raises(ClientDisconnectedError):
        await wait_for(signal)


async def test_a_signal_after_the_block_cancels_nothing():
    """A disconnect after the answer has no effect."""
    signal = DisconnectSignal()
    with CallerWatch(signal, within_s=60, starter=WatchStarter()) as watch:
        watch.start()
    signal.set()
    await asyncio.sleep(0)


async def test_a_signal_is_a_channel():
    """Read as an ASGI channel, a signal gives the disconnect, whenever it came."""
    signal = DisconnectSignal()
    reading = asyncio.create_task(signal())
    await asyncio.sleep(0)
    signal.set()
    assert await reading == await signal() == {"type": "http.disconnect"}


@pytest.mark.usefixtures("no_collector")
async def test_an_ended_watch_of_a_signal_is_freed_without_the_collector():
    """Reference counts alone free the watch and the signal of an answered request."""
    signal = DisconnectSignal()
    watch = CallerWatch(signal, within_s=60, starter=WatchStarter())
    gone = weakref.ref(watch)
    with watch:
        watch.start()
    del watch, signal
    assert gone() is None


@pytest.mark.usefixtures("no_collector")
async def test_an_ended_watch_is_freed_without_the_collector(monkeypatch):
    """Reference counts alone free the watch of a request with an ASGI channel, with its task and its timer."""
    monkeypatch.setattr(caller_watch, "WATCH_AFTER_S", 0.0)
    entered, left = asyncio.Event(), asyncio.Event()

    async def receive() -> object:
        entered.set()
        try:
            return await asyncio.Event().wait()
        finally:
            left.set()

    watch = CallerWatch(receive, within_s=60, starter=WatchStarter())
    gone = weakref.ref(watch)
    with watch:
        await entered.wait()
    del watch
    await left.wait()
    await asyncio.sleep(0)
    assert gone() is None
