"""The broker's process. localkn starts it, tells it everything by its environment, and starts it again if it ends."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from starlette.applications import Starlette

from chassis.server.config import configure
from knbroker.broker import Broker
from knbroker.client import Client
from knbroker.ingress import application
from knbroker.queue import RESERVE_BYTES, Choice, Queue
from kubeyaml.eventing import Routing
from localkn import control

_LIMITS = {
    "QUEUE_LIMIT": 100_000,
    "DELIVERIES_AT_ONCE": 32,
    "MAX_BODY_BYTES": 2 * 2**20,
    "RESERVE_BYTES": RESERVE_BYTES,
}
"""Deliveries that wait, deliveries of one Trigger under way, the length of an event and of an answer, disk held back."""


def main(environment: Mapping[str, str] = os.environ) -> None:
    """
    Serve until SIGTERM.

    `ROUTING` holds Brokers and Triggers, `QUEUE` names the file, `CONTROL` the socket for `events` and `redrive`; the
    limits may be set by their names.
    """
    routing = msgspec.json.decode(environment["ROUTING"], type=Routing)
    limit, at_once, limit_bytes, reserve_bytes = (int(environment.get(name, _LIMITS[name])) for name in _LIMITS)
    names = [trigger.name for trigger in routing.triggers]
    queue = Queue(Path(environment["QUEUE"]), names, reserve_bytes=reserve_bytes)
    client = Client(limit_bytes=limit_bytes)
    broker = Broker(routing, queue, client, limit=limit, at_once=at_once)

    async def events(request: dict[str, Any]) -> dict[str, Any]:
        return await broker.figures(letters=request.get("letters", 1000))

    async def redrive(request: dict[str, Any]) -> dict[str, Any]:
        return await broker.revive(Choice(request.get("trigger"), request.get("ids"), request.get("source")))

    @contextlib.asynccontextmanager
    async def running(_: Starlette) -> AsyncIterator[None]:
        async with control.serving(Path(environment["CONTROL"]), {"events": events, "redrive": redrive}):
            delivering = asyncio.create_task(broker.run())
            # It ends by itself only by a fault; the process is started again then.
            delivering.add_done_callback(lambda _: signal.raise_signal(signal.SIGTERM))
            yield
            delivering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await delivering
            client.close()
            await queue.close()

    app = application(broker, limit_bytes=limit_bytes, lifespan=running)
    config = configure(app, host="127.0.0.1", port=int(environment["PORT"]), log_level="warning")
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main()
