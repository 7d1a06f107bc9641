"""A broker on a disk that is full: what it accepted is delivered and recorded, and it recovers without a restart."""

import asyncio
import contextlib
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chassis.wire.cloudevents import Event
from chassis.wire.http_connection import Answer
from chassis.wire.problems import ServingError
from knbroker.broker import Broker
from knbroker.queue import Queue
from kubeyaml.eventing import DeliverySpec as Policy
from kubeyaml.eventing import Trigger
from tests.hostile.conftest import Figure
from tests.knbroker import brokers
from tests.knbroker.subscribers import NEEDED, Subscribers, answer, event_answer

pytestmark = pytest.mark.may_block

DISK_BYTES, RESERVE_BYTES = 12 * 2**20, 4 * 2**20
EVENT = Event(NEEDED, b"x" * 100_000)
TRIGGER = Trigger("ns/a", "ns/b", "http://a", (), Policy(3, "linear", 0.001, timeout_s=60))


@dataclass
class Disk:
    """
    A small disk, or where nothing can be mounted a database that may not grow.

    Attributes:
        path: Its directory.
        is_quota: Whether it is only a database with a limit.
    """

    path: Path
    is_quota: bool

    def open(self) -> Queue:
        """The queue on it."""
        queue = Queue(self.path / "q.db", ["ns/a"], reserve_bytes=RESERVE_BYTES)
        if self.is_quota:
            queue._writer.execute(f"PRAGMA max_page_count = {(DISK_BYTES - RESERVE_BYTES) // 4096}")
        return queue

    def fill(self) -> None:
        """Use up what is left, as another program would; a quota has nothing left for others."""
        if self.is_quota:
            return
        with (self.path / "other").open("wb", buffering=0) as file:
            for size in (2**16, 1):
                with contextlib.suppress(OSError):
                    while file.write(b"x" * size):
                        pass

    def make_room(self) -> None:
        """Remove what another program wrote."""
        (self.path / "other").unlink(missing_ok=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Yield a tmpfs if this user may mount one, else a database with a size limit."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(tmp_path)]
    is_mounted = bool(shutil.which("mount")) and subprocess.run(mount, check=False, capture_output=True).returncode == 0
    print("a tmpfs" if is_mounted else "no mount is permitted here: a quota of the database", end=": ")
    yield Disk(tmp_path, is_quota=not is_mounted)
    if is_mounted:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


class Gated(Subscribers):
    """Subscribers that answer only after their gate opens."""

    def __init__(self, script: Any = ()) -> None:
        super().__init__(script)
        self.gate = asyncio.Event()

    async def post(self, url: str, **rest: Any) -> Answer:
        await self.gate.wait()
        return await super().post(url, **rest)


def running(disk: Disk, subscribers: Subscribers) -> AbstractAsyncContextManager[Broker]:
    return brokers.running(disk.path, subscribers, [TRIGGER], limit=10_000, at_once=4, queue=disk.open())


async def accept_some(broker: Broker) -> None:
    """Send twenty events while there is room."""
    for number in range(20):
        await broker.accept("ns/b", EVENT.extended(id=f"first {number}"), [])


async def accept_until_full(broker: Broker) -> int:
    """Send events until one is refused for lack of room; return how many were accepted."""
    for number in range(10_000):
        try:
            await broker.accept("ns/b", EVENT.extended(id=str(number)), [])
        except ServingError as error:
            assert error.status == 507
            return number
    raise AssertionError("the disk does not fill")


async def until(condition: Callable[[dict[str, Any]], bool], broker: Broker) -> dict[str, Any]:
    """Return the figures once *condition* holds for them."""
    while not condition(figures := await broker.figures(letters=10)):
        await asyncio.sleep(0)
    return figures


async def accepted_again(broker: Broker) -> None:
    """Send an event until it is accepted."""
    while True:
        with contextlib.suppress(ServingError):
            return await broker.accept("ns/b", EVENT.extended(id="later"), [])
        await asyncio.sleep(0)


@pytest.fixture
def anyio_backend() -> str:
    """The broker runs on asyncio."""
    return "asyncio"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that looks for room at every event."""
    monkeypatch.setattr("knbroker.queue._RECOVERY_PAUSE_S", 0.0)
    monkeypatch.setattr("knbroker.broker._DISK_PAUSE_S", 0.001)


@pytest.mark.parametrize("filled_by", ["events", "another program"])
async def test_accepted_events_are_delivered_once_and_recorded(disk: Disk, filled_by: str, figure: Figure) -> None:
    """A full broker answers 507, delivers each accepted event once, and accepts events again when there is room."""
    async with running(disk, subscribers := Gated()) as broker, asyncio.timeout(60):
        if filled_by == "another program":
            await accept_some(broker)
            disk.fill()
        accepted = await accept_until_full(broker) + (20 if filled_by == "another program" else 0)
        assert accepted > 10
        subscribers.gate.set()
        figures = await until(lambda found: not found["waiting"], broker)
        assert figures["triggers"]["ns/a"]["delivered"] == accepted
        assert sorted(headers["ce-id"] for _, headers, _ in subscribers.posts) == sorted(
            {headers["ce-id"] for _, headers, _ in subscribers.posts}
        )
        disk.make_room()
        await accepted_again(broker)
        await until(lambda found: found["triggers"]["ns/a"]["delivered"] == accepted + 1, broker)
        assert (await broker.figures(letters=0))["has_room"]
    figure(f"disk filled by {filled_by}: events accepted before 507, each delivered once", accepted, "events")


async def test_a_full_disk_outlives_a_restart(disk: Disk) -> None:
    """A broker that is started on the full disk knows what is undelivered, delivers it and records that."""
    async with running(disk, Gated()) as broker, asyncio.timeout(60):
        await accept_some(broker)
        disk.fill()
        accepted = 20 + await accept_until_full(broker)
    subscribers = Gated()
    subscribers.gate.set()
    async with running(disk, subscribers) as broker, asyncio.timeout(60):
        await until(lambda found: found["triggers"]["ns/a"]["delivered"] == accepted, broker)
        assert (await broker.figures(letters=0))["waiting"] == 0
    print(f"started on the full disk: {accepted} delivered and recorded")


async def test_a_reply_that_finds_no_room_is_a_failed_delivery(disk: Disk) -> None:
    """The failure is counted and retried by the Trigger's policy, so the event becomes a delivery or a dead letter."""
    subscribers = Gated()
    async with running(disk, subscribers) as broker, asyncio.timeout(60):
        await accept_some(broker)
        disk.fill()
        accepted = 20 + await accept_until_full(broker)
        subscribers.script = [event_answer(type="reply", id=str(number)) for number in range(2)]
        subscribers.gate.set()
        figures = await until(lambda found: not found["waiting"], broker)
    found = figures["triggers"]["ns/a"]
    print(f"{accepted} accepted; {found['failed']} replies found no room, {found['delivered']} delivered in the end")
    assert found["delivered"] >= accepted
    assert found["dead"] == 0


async def test_other_errors_of_the_disk_stop_nothing(disk: Disk) -> None:
    """A locked database refuses new events with 503; the broker records the delivery once the lock is released."""
    async with running(disk, subscribers := Gated([answer(202)])) as broker, asyncio.timeout(60):
        await broker.accept("ns/b", EVENT, [])
        other = sqlite3.connect(disk.path / "q.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        subscribers.gate.set()
        await subscribers.until(1)
        with pytest.raises(ServingError, match="locked") as caught:
            await broker.accept("ns/b", EVENT, [])
        assert caught.value.status == 503
        other.rollback()
        await until(lambda found: not found["waiting"], broker)
        other.close()
    assert len(subscribers.posts) == 1
