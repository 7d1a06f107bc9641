"""Limits hold on each connection with any ASGI application; these tests use a minimal one."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from chassis.server.caller_watch import Receive, Send
from chassis.server.connection import ServerConnection
from chassis.server.limits import Refusals, ServerLimits
from tests.chassis.server import wire
from tests.chassis.server.wire import settle
from tests.virtual_time import VirtualClock, on_virtual_time
from tests.waiting import until


class Wire(wire.Wire):
    """A transport whose close does not reach the protocol."""

    aborted = False

    def hang_up(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.closed or self.aborted

    @property
    def statuses(self) -> list[int]:
        """The statuses of the answers sent, in their order."""
        return [int(part[:3]) for part in self.sent.split(b"HTTP/1.1 ")[1:]]


class App:
    """An application that answers once it may, and counts what it is told."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.go.set()
        self.started = 0
        self.disconnects = 0

    async def __call__(self, _scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        self.started += 1
        while (message := await receive())["type"] == "http.request" and message["more_body"]:
            pass
        leaving = asyncio.ensure_future(receive())
        going = asyncio.ensure_future(self.go.wait())
        await asyncio.wait([leaving, going], return_when=asyncio.FIRST_COMPLETED)
        going.cancel()
        if leaving.done():
            self.disconnects += 1
            return
        leaving.cancel()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})


class Server:
    """An application, and connections to it."""

    def __init__(self, **limits: Any) -> None:
        self.app = App()
        self.config = uvicorn.Config(self.app, ws="none", lifespan="off", log_config=None, timeout_keep_alive=120)
        self.config.load()
        self.state = ServerState()
        self.limits, self.refusals = ServerLimits(**limits), Refusals()

    def connect(self) -> tuple[Wire, ServerConnection]:
        wire = Wire()
        connection = ServerConnection(
            config=self.config, server_state=self.state, app_state={}, limits=self.limits, refusals=self.refusals
        )
        connection.connection_made(wire)
        return wire, connection

    async def talk(self, *parts: bytes) -> tuple[Wire, ServerConnection]:
        wire, connection = self.connect()
        for part in parts:
            connection.data_received(part)
            await settle()
        return wire, connection


GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"


async def test_reading_pauses_while_many_requests_wait() -> None:
    """A few requests are parsed ahead, 64 KiB and one read of others are kept, and the rest stays with the kernel."""
    server = Server()
    server.app.go.clear()
    wire, connection = await server.talk(GET * 4_000)
    assert (wire.reading, server.app.started, wire.sent) == (False, 1, b"")
    assert len(connection.pipeline) < 60
    server.app.go.set()
    await until(lambda: len(wire.statuses) == 4_000)
    assert wire.reading


async def test_an_answer_does_not_let_more_in() -> None:
    """While more than enough waits, neither an answer nor an application that reads its request resumes reading."""
    server = Server()
    wire, connection = await server.talk(GET * 4_000)
    waiting = len(connection._rest)
    while waiting > server.limits.waiting_bytes:
        assert not wire.reading
        await asyncio.sleep(0)
        waiting = len(connection._rest)
    await until(lambda: len(wire.statuses) == 4_000)


async def test_a_caller_that_leaves_is_noticed_behind_pipelined_requests() -> None:
    """The request that is being answered is told, and those behind it are never started."""
    server = Server()
    server.app.go.clear()
    wire, connection = await server.talk(GET * 2)
    assert wire.reading
    connection.connection_lost(None)
    await settle()
    assert (server.app.started, server.app.disconnects, server.state.tasks) == (1, 1, set())


@pytest.mark.parametrize(
    "garbage", [b"GARBAGE\r\n\r\n", POST + b"hell", GET[:10]], ids=["garbage", "half a body", "half a head"]
)
async def test_requests_before_a_faulty_one_are_answered_first(garbage: bytes) -> None:
    """The answers go out in their order, then the refusal, and then the connection ends."""
    server = Server(head_s=0.05, body_s=0.05)
    server.app.go.clear()
    wire, _ = await server.talk(GET * 3 + garbage)
    assert wire.sent == b""
    server.app.go.set()
    await until(lambda: wire.closed)
    assert wire.statuses == [204, 204, 204, 400 if b"GARBAGE" in garbage else 408]


@pytest.mark.parametrize(
    "parts", [[b"GET / HT"], [POST], [POST, b"hell"], [GET, GET[:-1]], [GET + GET[:-1]]],
    ids=["half a head", "no body", "half a body", "half a next head", "half a next head in the same read"],
)  # fmt: skip
async def test_a_late_request_is_refused(parts: list[bytes]) -> None:
    """A head or a body that is not whole in time gets 408, and the connection ends."""
    server = Server(head_s=0.05, body_s=0.05)
    wire, _ = await server.talk(*parts)
    await until(lambda: wire.closed)
    assert wire.statuses == [204] * sum(part.startswith(GET) for part in parts) + [408]
    assert b"\r\ncontent-type: application/problem+json\r\n" in wire.sent


@on_virtual_time
async def test_a_head_in_time_is_no_excuse_for_the_next(clock: VirtualClock) -> None:
    """Each request has its own time limit, even if every read ends in the middle of a request."""
    server = Server(head_s=0.3)
    wire, connection = await server.talk(GET[:5])
    for _ in range(8):
        await clock.advance(0.1)
        connection.data_received(GET[5:] + GET[:5])
        await settle()
    assert not wire.closed
    assert wire.statuses == [204] * 8
    await until(lambda: wire.closed)


@on_virtual_time
async def test_a_slow_answer_does_not_make_the_next_request_late(clock: VirtualClock) -> None:
    """The time of a request that waits for the one before it does not run."""
    server = Server(head_s=0.05, body_s=0.05)
    server.app.go.clear()
    wire, connection = await server.talk(GET + POST + b"he")
    await clock.advance(0.2)
    assert not wire.closed
    server.app.go.set()
    connection.data_received(b"llo")
    await settle()
    assert wire.statuses == [204, 204]


@on_virtual_time
async def test_an_answer_that_is_not_read_ends_the_connection(clock: VirtualClock) -> None:
    """A caller that does not read loses its connection after a time; one that reads in time keeps it."""
    server = Server(send_s=0.05)
    wire, connection = await server.talk(GET)
    connection.pause_writing()
    connection.resume_writing()
    await clock.advance(0.1)
    assert not wire.aborted
    connection.pause_writing()
    await until(lambda: wire.aborted)


async def test_a_close_that_the_caller_does_not_read_ends_all_the_same() -> None:
    """A connection that is closed with bytes unsent is dropped after a time."""
    server = Server(send_s=0.05)
    server.config.timeout_keep_alive = 0.05  # type: ignore[assignment]
    wire, _ = server.connect()
    await until(lambda: wire.closed)
    await until(lambda: wire.aborted)


async def test_connections_have_a_limit(caplog: pytest.LogCaptureFixture) -> None:
    """The one beyond it gets 503, and one that ends makes room; the log names the limit, once for many."""
    server = Server(connections=2)
    first = server.connect()
    server.connect()
    for _ in range(5):
        wire, connection = server.connect()
        assert (wire.statuses, wire.closed) == ([503], True)
        connection.connection_lost(None)
    first[1].connection_lost(None)
    assert not server.connect()[0].closed
    told = [record for record in caplog.records if record.message == "too_many_connections"]
    assert [record.__dict__["limit"] for record in told] == [2]


def test_few_descriptors_mean_few_connections(caplog: pytest.LogCaptureFixture) -> None:
    """Half of the descriptors are left for other uses, and the log says how many connections there may be."""
    assert ServerLimits().fit(100_000) == ServerLimits()
    assert ServerLimits().fit(1024) == ServerLimits(connections=512)
    assert ServerLimits().fit(10).connections == 5
    assert [record.message for record in caplog.records] == ["few_descriptors"] * 2


def test_refusals_are_logged_at_most_every_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    """A log line tells how many there were since the last one."""
    refusals = Refusals()
    for now in (0, 1, 2, 10, 11, 20):
        refusals.note(now=now, limit=7)
    assert [record.__dict__["refused"] for record in caplog.records] == [1, 3, 2]


@pytest.mark.parametrize(("count", "status"), [(128, 204), (129, 431)])
async def test_the_number_of_headers_has_a_limit(count: int, status: int) -> None:
    """One header more than allowed gets 431."""
    wire, _ = await Server().talk(GET[:-2] + b"A: b\r\n" * (count - 1) + b"\r\n")
    assert wire.statuses == [status]


@pytest.mark.parametrize(
    ("chunk", "count", "statuses"),
    [
        (b"8\r\nabcdefgh\r\n", 100_000, [204]),
        (b"1000\r\n" + b"x" * 4096 + b"\r\n", 500, [204]),
        (b"1\r\na\r\n", 100_000, [431]),
        (b"1;" + b"e" * 10_000 + b"\r\na\r\n", 20, [431]),
        (b"1;" + b"e" * 100_000 + b"\r\na\r\n", 1, [431]),
    ],
    ids=["short chunks", "usual chunks", "chunks of one byte", "extensions", "one long extension"],
)
async def test_the_framing_of_a_body_has_a_limit(chunk: bytes, count: int, statuses: list[int]) -> None:
    """Chunk sizes and extensions may be as long as the body, and 64 KiB longer."""
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    talk = head + chunk * count + b"0\r\n\r\n"
    server = Server()
    wire, connection = server.connect()
    for start in range(0, len(talk), 10_000):
        if not wire.closed:
            connection.data_received(talk[start : start + 10_000])
        await asyncio.sleep(0)
    await settle()
    assert wire.statuses == statuses


@pytest.mark.parametrize("target", [b"http://x/", b"http://x", b"/", b"*"])
async def test_targets_are_read_in_each_form(target: bytes) -> None:
    """An absolute target is one of this server, as RFC 9112, section 3.2.2, demands; nothing crashes."""
    wire, _ = await Server().talk(b"OPTIONS %b HTTP/1.1\r\nHost: x\r\n\r\n" % target)
    assert wire.statuses in ([204], [400])
    assert (wire.statuses == [400]) == wire.closed
