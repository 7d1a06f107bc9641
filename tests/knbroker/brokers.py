"""Brokers that run in the test process."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from chassis.wire.cloudevents import Event
from knbroker.broker import Broker
from knbroker.client import DeliveryClient
from knbroker.delivery import Stored
from knbroker.queue import Queue
from kubeyaml.eventing import DeliverySpec as Policy
from kubeyaml.eventing import Routing, Trigger
from tests.knbroker.subscribers import NEEDED
from tests.waiting import LIMIT_S

EVENT = Event(NEEDED, b"{}")
TRACE = f"00-{1:032x}-{2:016x}-01"
FAST = Policy(3, "linear", 0.001, timeout_s=LIMIT_S)
TO_A = Trigger("ns/a", "ns/b", "http://a", [{"exact": {"type": "a"}}], FAST)
TO_B = Trigger("ns/b", "ns/b", "http://b", [{"exact": {"type": "b"}}], FAST)


@contextlib.asynccontextmanager
async def running(
    path: Path,
    subscribers: DeliveryClient,
    triggers: Sequence[Trigger] = (TO_A, TO_B),
    *,
    limit: int = 100,
    at_once: int = 2,
    queue: Queue | None = None,
    erasing: Mapping[str, str] | None = None,
) -> AsyncIterator[Broker]:
    """Run a broker that delivers until the block ends; a failure of the broker ends the block immediately."""
    queue = queue or Queue(path / "q.db", [trigger.name for trigger in triggers])
    broker = Broker(Routing(("ns/b",), triggers, erasing or {}), queue, subscribers, limit=limit, at_once=at_once)
    try:
        async with asyncio.TaskGroup() as group:
            delivering = group.create_task(broker.run())
            yield broker
            delivering.cancel()
    finally:
        await queue.close()


async def idle(broker: Broker) -> dict[str, Any]:
    """Return the figures once no delivery is waiting."""
    while (figures := await broker.figures(letters=10))["waiting"]:
        await asyncio.sleep(0)
    return figures


def stored() -> Stored:
    """Return an event as the queue stores it."""
    return Stored("ns/b", EVENT, 255, [])


async def disk_fails(*_: object, **__: object) -> None:
    """Fail as a method of the queue does when the disk does."""
    raise sqlite3.OperationalError("disk I/O error")
