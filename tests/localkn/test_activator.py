"""The activator alone, between callers and instances on real sockets."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import cast

import pytest

from localkn.activator import Door
from tests.clock import Clock
from tests.waiting import until

pytestmark = pytest.mark.anyio

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


class Echo(asyncio.Protocol):
    """An instance: answers the first bytes of a connection, and keeps everything that it receives."""

    def __init__(self, received: bytearray) -> None:
        self._received = received

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if not self._received:
            self.transport.write(ANSWER)
        self._received += data


@contextlib.asynccontextmanager
async def an_instance() -> AsyncIterator[tuple[int, bytearray]]:
    """Serve one instance; yield its port and the bytes that it has received."""
    received = bytearray()
    server = await asyncio.get_running_loop().create_server(lambda: Echo(received), "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1], received
    server.close()


@pytest.fixture
async def opened() -> AsyncIterator[Callable[..., Door]]:
    """Return a function that opens a door, and close it in the end."""
    serving = []

    def make(*, http2: bool = False, queue_limit: int = 10, clock: Clock | None = None) -> Door:
        door = Door(http2=http2, queue_limit=queue_limit, woken=lambda: woken.append(1), clock=clock or Clock())
        serving.append(asyncio.create_task(door.serve()))
        return door

    yield make
    for task in serving:
        task.cancel()
    await asyncio.gather(*serving, return_exceptions=True)


woken: list[int] = []


@pytest.fixture(autouse=True)
def nothing_was_woken() -> None:
    woken.clear()


REQUEST = b"GET / HTTP/1.1\r\n\r\n"
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[..., Awaitable[Connection]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Return a function that sends a request as Envoy does, and close its connections in the end."""
    writers = []

    async def send(door: Door, sent: bytes = REQUEST) -> Connection:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(sent)
        writers.append(writer)
        return reader, writer

    yield send
    for writer in writers:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_a_request_waits_and_is_answered(opened: Callable[..., Door], connect: Connect) -> None:
    """The first waiting request wakes the revision; its bytes reach the instance, and the cold start is measured."""
    clock = Clock()
    door = opened(clock=clock)
    reader, writer = await connect(door)
    await until(lambda: door.waiting == 1)
    assert (woken, door.cold_start_s) == ([1], None)
    async with an_instance() as (port, received):
        clock.now = 2.5
        door.open([port])
        assert await reader.readuntil(b"\r\n\r\n") == ANSWER
        assert (bytes(received), door.waiting, door.cold_start_s) == (REQUEST, 0, 2.5)
        assert door.forwarded(port) == 1
        finished = asyncio.create_task(door.finished(port))
        writer.close()
        await finished
    assert door.forwarded(port) == 0


async def test_a_request_passes_directly_while_an_instance_is_ready(
    opened: Callable[..., Door], connect: Connect
) -> None:
    """A request that Envoy still sends here after the start does not wait, and wakes nothing."""
    door = opened()
    async with an_instance() as (port, _):
        door.open([port])
        reader, writer = await connect(door)
        assert await reader.readuntil(b"\r\n\r\n") == ANSWER
        writer.close()
    assert (woken, door.cold_start_s) == ([], None)


async def test_a_long_body_waits_outside(opened: Callable[..., Door], connect: Connect) -> None:
    """The activator keeps a bounded part of a body, and passes all of it on in order."""
    door = opened()
    body = bytes(range(256)) * 40_000
    _, writer = await connect(door, body)
    await until(lambda: door.waiting == 1)
    async with an_instance() as (port, received):
        door.open([port])
        await until(lambda: len(received) == len(body))
        assert bytes(received) == body
        writer.close()


async def test_a_caller_that_leaves_is_dropped(opened: Callable[..., Door], connect: Connect) -> None:
    """Nothing is sent to an instance for a caller that disconnected."""
    door = opened()
    _, writer = await connect(door)
    await until(lambda: door.waiting == 1)
    writer.close()
    await until(lambda: door.waiting == 0)
    async with an_instance() as (port, received):
        door.open([port])
        assert (door.forwarded(port), bytes(received)) == (0, b"")


async def test_the_queue_is_bounded(opened: Callable[..., Door], connect: Connect) -> None:
    """A request beyond the limit gets 503 immediately, and those before it go on waiting."""
    door = opened(queue_limit=2)
    kept = [await connect(door) for _ in range(2)]
    await until(lambda: door.waiting == 2)
    reader, _ = await connect(door)
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json")
    assert json.loads(body)["detail"] == "the queue of the activator is full"
    assert door.waiting == 2
    for _, writer in kept:
        writer.close()


def waits(door: Door, requests: int) -> bool:
    return door.waiting == requests


async def read(reader: asyncio.StreamReader) -> bytes:
    """Return all bytes until the connection ends; none if it is reset."""
    try:
        return await reader.read()
    except ConnectionError:
        return b""


async def test_a_failed_start_answers_all_waiting_requests(opened: Callable[..., Door], connect: Connect) -> None:
    """Every waiting request gets 503 with the reason; with HTTP/2, a closed connection, for which Envoy answers."""
    for http2 in (False, True):
        door: Door = opened(http2=http2)
        readers = [(await connect(door))[0] for _ in range(3)]
        await until(partial(waits, door, 3))
        door.refuse("cannot start: exit code 3")
        answers = [await read(reader) for reader in readers]
        assert [b'"detail": "cannot start: exit code 3"' in answer for answer in answers] == [not http2] * 3
        await until(partial(waits, door, 0))


async def test_a_request_waits_again_if_its_instance_has_just_ended(
    opened: Callable[..., Door], connect: Connect
) -> None:
    """An instance that refuses the connection got nothing, so another one answers."""
    door = opened()
    async with an_instance() as (gone, _):
        pass
    reader, writer = await connect(door)
    await until(lambda: door.waiting == 1)
    door.open([gone])
    assert door.forwarded(gone) == 1
    await until(lambda: door.waiting == 1)
    async with an_instance() as (port, _):
        door.open([port])
        assert await reader.readuntil(b"\r\n\r\n") == ANSWER
        writer.close()


async def test_waiting_requests_count_as_load(opened: Callable[..., Door], connect: Connect) -> None:
    """The report is the time-weighted number of waiting requests, without the first, which was announced."""
    clock = Clock()
    door = opened(clock=clock)
    writers = [(await connect(door))[1] for _ in range(3)]
    await until(lambda: door.waiting == 3)
    clock.now = 1.0
    assert door.report() == 2.0
    clock.now = 2.0
    assert door.report() == 3.0
    clock.now = 3.0
    assert door.report(seen=7.5) == 7.5
    for writer in writers:
        writer.close()
    await until(lambda: door.waiting == 0)


async def test_requests_are_spread_over_instances(opened: Callable[..., Door], connect: Connect) -> None:
    """Each request goes to the instance with the fewest requests from here."""
    door = opened()
    writers = [(await connect(door))[1] for _ in range(4)]
    await until(lambda: door.waiting == 4)
    async with an_instance() as (first, _), an_instance() as (second, _):
        door.open([first, second])
        assert (door.forwarded(first), door.forwarded(second)) == (2, 2)
        for writer in writers:
            writer.close()
        await until(lambda: door.forwarded(first) + door.forwarded(second) == 0)
