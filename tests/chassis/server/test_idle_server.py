"""The server that sleeps until a connection or a signal arrives."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from chassis.server.config import configure
from chassis.server.idle_server import WakingServer
from tests.waiting import LIMIT_S, until

pytestmark = pytest.mark.anyio


async def _answer(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def _server() -> WakingServer:
    return WakingServer(configure(_answer, host="127.0.0.1", port=0, log_level="warning", lifespan="off"))


def _flag(server: WakingServer) -> None:
    server.should_exit = True


def _from_a_thread(server: WakingServer) -> None:
    thread = threading.Thread(target=_flag, args=(server,))
    thread.start()
    thread.join()


def _by_a_signal(server: WakingServer) -> None:
    signal.signal(signal.SIGUSR1, lambda *_: _flag(server))
    os.kill(os.getpid(), signal.SIGUSR1)


@pytest.mark.parametrize("end", [_flag, _from_a_thread, _by_a_signal])
async def test_the_flag_wakes_the_server(end: Callable[[WakingServer], None]) -> None:
    """The server ends when the loop, a thread or a signal handler sets its flag, without a tick in between."""
    server = _server()
    ticks = 0

    async def counted(counter: int) -> bool:
        nonlocal ticks
        ticks += 1
        return await WakingServer.on_tick(server, counter)

    server.on_tick = counted  # type: ignore[method-assign]
    before = signal.getsignal(signal.SIGUSR1)
    running = asyncio.create_task(server._serve())
    try:
        await until(lambda: server.started)
        asyncio.get_running_loop().call_soon(partial(end, server))
        async with asyncio.timeout(LIMIT_S):
            await running
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert ticks == 1


async def test_a_flag_that_is_set_first_ends_the_server() -> None:
    """A server whose flag is set before it waits ends after its start."""
    server = _server()
    server.should_exit = True
    async with asyncio.timeout(LIMIT_S):
        await server._serve()
    assert server.started
