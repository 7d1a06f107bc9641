"""
A small ASGI application that the tests run as instances, controlled by its environment.

CRASH=N exits immediately with status N. READY_AFTER_S delays readiness. SLEEP_MS delays each answer. REPORT=0 disables
concurrency reports, so that the platform has to measure. IGNORE_SIGTERM=1 ignores SIGTERM.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import uvicorn

SLEEP_S = float(os.environ.get("SLEEP_MS", "0")) / 1000
READY_AT = time.monotonic() + float(os.environ.get("READY_AFTER_S", "0"))
# Status of the answer to an event posted to each path.
SINKS = {"/accept": 202, "/refuse": 422, "/later": 503}
POD = os.environ.get("LOCALKN_POD", "")


class RequestStats:
    """Time-weighted concurrency and arrivals between two reports, as in Knative's queue-proxy."""

    def __init__(self, now: float) -> None:
        self.active = 0
        self._arrivals = 0
        self._integral = 0.0
        self._since = self._last = now

    def change(self, by: int, now: float) -> None:
        self._integral += self.active * (now - self._last)
        self._last = now
        self.active += by
        self._arrivals += max(by, 0)

    def report(self, now: float) -> dict[str, Any]:
        self.change(0, now)
        elapsed, arrivals, integral = now - self._since, self._arrivals, self._integral
        self._since, self._arrivals, self._integral = now, 0, 0.0
        return {"pod": POD, "concurrency": integral / elapsed if elapsed else 0.0, "requests": arrivals}


STATS = RequestStats(time.monotonic())


async def report_forever(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.setblocking(False)
        while True:
            await asyncio.sleep(1)
            with contextlib.suppress(OSError):
                channel.sendto(json.dumps(STATS.report(time.monotonic())).encode(), path)


@contextlib.asynccontextmanager
async def reporting() -> AsyncIterator[None]:
    path = os.environ.get("LOCALKN_STATS")
    task = asyncio.create_task(report_forever(path)) if path and os.environ.get("REPORT") != "0" else None
    yield
    if task:
        task.cancel()


async def app(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    if scope["type"] == "lifespan":
        await receive()
        async with reporting():
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["type"] != "http":
        return
    if scope["path"] == "/readyz":
        await answer(send, 200 if time.monotonic() >= READY_AT else 503, b"")
        return
    STATS.change(1, time.monotonic())
    try:
        while (await receive()).get("more_body"):
            pass
        if scope["path"] == "/crash":
            os._exit(3)
        await asyncio.sleep(SLEEP_S)
        if scope["path"] in SINKS:
            await answer(send, SINKS[scope["path"]], b"")
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        body = {"pod": POD, "pid": os.getpid(), "headers": headers, "env": dict(os.environ), "argv": sys.argv[1:]}
        await answer(send, 200, json.dumps(body).encode())
    finally:
        STATS.change(-1, time.monotonic())


async def answer(send: Callable[[Any], Awaitable[None]], status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    print(f"starting {POD}", flush=True)
    if code := os.environ.get("CRASH"):
        print(f"about to exit with {code}", flush=True)
        sys.exit(int(code))
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning", timeout_keep_alive=120)
    )
    if os.environ.get("IGNORE_SIGTERM"):
        server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    server.run()
