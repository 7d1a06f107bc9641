"""A request leaves no work to the garbage collector."""

import asyncio
import gc
import weakref

from chassis.server import caller_watch
from chassis.server.caller_watch import CallerWatch, WatchStarter


async def test_an_ended_watch_is_freed_without_the_collector(monkeypatch):
    """Reference counts alone free the watch of an answered request, with its task and its timer."""
    monkeypatch.setattr(caller_watch, "WATCH_AFTER_S", 0.0)
    entered, left = asyncio.Event(), asyncio.Event()

    async def receive() -> object:
        entered.set()
        try:
            return await asyncio.Event().wait()
        finally:
            left.set()

    gc.disable()
    try:
        watch = CallerWatch(receive, within_s=60, starter=WatchStarter())
        gone = weakref.ref(watch)
        with watch:
            await entered.wait()
        del watch
        await left.wait()
        await asyncio.sleep(0)
        assert gone() is None
    finally:
        gc.enable()
