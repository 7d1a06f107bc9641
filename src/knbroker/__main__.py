"""Run the broker as a process. localkn starts it, configures it through its environment, and restarts it if it ends."""

import asyncio
import contextlib
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import msgspec
from starlette.applications import Starlette

from chassis.server.config import configure
from chassis.server.idle_server import WakingServer
from knbroker.broker import Broker
from knbroker.client import DeliveryClient
from knbroker.ingress import application
from knbroker.queue import RESERVE_BYTES, DeadLetterChoice, Queue
from knbroker.topics import Topic
from kubeyaml.eventing import Routing
from localkn import control

_LIMITS = {
    "QUEUE_LIMIT": 100_000,
    "DELIVERIES_AT_ONCE": 32,
    "MAX_BODY_BYTES": 2 * 2**20,
    "RESERVE_BYTES": RESERVE_BYTES,
}
"""Most waiting deliveries, most concurrent deliveries of a Trigger, longest event or answer, and disk held back."""


def main(environment: Mapping[str, str] = os.environ) -> None:
    """
    Serve until SIGTERM.

    `ROUTING` contains Brokers and Triggers, `QUEUE` is the path of the queue's file, `CONTROL` the path of the socket
    for `events`, `redrive`, `discard` and `keep`, `PORT` the port. Variables with the names of the limits override them.
    `ALLOWED_HOSTS` names further hosts of the ingress, separated by spaces.
    """
    routing = msgspec.json.decode(environment["ROUTING"], type=Routing)
    limit, at_once, limit_bytes, reserve_bytes = (int(environment.get(name, _LIMITS[name])) for name in _LIMITS)
    names = [trigger.name for trigger in routing.triggers]
    # The dead letter of an erasure is redriven, so that the erasure takes place.
    path = Path(environment["QUEUE"])
    try:
        queue = Queue(path, names, reserve_bytes=reserve_bytes, kept=routing.erasing)
    except sqlite3.Error as error:
        sys.exit(f"{path}: the queue of events cannot be opened: {error}; if it is damaged, remove it with its events")
    client = DeliveryClient(limit_bytes=limit_bytes)
    broker = Broker(routing, queue, client, limit=limit, at_once=at_once)

    @contextlib.asynccontextmanager
    async def running(_: Starlette) -> AsyncIterator[None]:
        async with control.serving(Path(environment["CONTROL"]), _handlers(broker)):
            delivering = asyncio.create_task(broker.run())
            # The deliveries end only through a bug. Then the process ends, and localkn restarts it.
            delivering.add_done_callback(lambda _: signal.raise_signal(signal.SIGTERM))
            yield
            delivering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await delivering
            await client.aclose()
            await queue.close()

    hosts = environment.get("ALLOWED_HOSTS", "").split()
    app = application(broker, limit_bytes=limit_bytes, hosts=hosts, lifespan=running)
    config = configure(app, host="127.0.0.1", port=int(environment["PORT"]), log_level="warning")
    WakingServer(config).run()


def _handlers(broker: Broker) -> dict[str, control.VerbHandler]:
    """Return the verbs of the control socket."""
    return {
        "events": lambda request: broker.figures(letters=request.get("letters", 1000)),
        "redrive": lambda request: broker.revive(
            DeadLetterChoice(request.get("trigger"), request.get("ids"), request.get("source"))
        ),
        "discard": lambda request: broker.discard(Topic(request["member"], request["value"])),
        "keep": lambda request: broker.keep(Topic(request["member"], request["value"])),
    }


if __name__ == "__main__":
    main()
