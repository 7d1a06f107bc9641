"""
The direct path for plain requests answers as uvicorn's own way does, byte for byte, however the bytes come in.

A wire stands for the connection, so that a test decides what one read brings and when the caller goes.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from recsys.serving import protocol as protocol_module
from recsys.serving.asgi import Shell
from recsys.serving.call import Call, Handler, Reply
from recsys.serving.protocol import Exchange, Protocol
from recsys.serving.service import Service
from recsys.serving.settings import ServingSettings
from recsys.settings import Reader

SETTINGS = ServingSettings.read(Reader({"K_REVISION": "echo-00001", "AUTH": "off"}), name="echo", max_body_bytes=1024)
_TIMES = re.compile(rb"dur=[0-9.]+")


class Wire(asyncio.Transport):
    """Notes what is sent; closing it is noticed a turn later, as with a socket."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = False
        self.reading = True
        self.protocol: asyncio.Protocol | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.closed:
            self.writes.append(bytes(data))

    def close(self) -> None:
        if not self.closed:
            self.hang_up()

    def hang_up(self) -> None:
        self.closed = True
        assert self.protocol is not None
        asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    @property
    def sent(self) -> bytes:
        """What was sent, without the times in it."""
        return _TIMES.sub(b"dur=", b"".join(self.writes))


class Side:
    """A service behind one of the two protocols."""

    def __init__(self, kind: type[HttpToolsProtocol], handler: Handler) -> None:
        @asynccontextmanager
        async def open_handler() -> AsyncIterator[Handler]:
            yield handler

        self.service = Service("echo", open_handler, settings=SETTINGS)
        shell = Shell(lambda *_: None, self.service, on_failed_start=lambda: None)  # type: ignore[arg-type]
        self.config = uvicorn.Config(
            shell,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=120,
        )
        self.config.load()
        self.state = ServerState()
        self.kind = kind

    def connect(self) -> Wire:
        wire = Wire()
        wire.protocol = self.kind(config=self.config, server_state=self.state, app_state={})
        wire.protocol.connection_made(wire)
        return wire

    async def talk(self, parts: Sequence[bytes]) -> Wire:
        """Have *parts* come in one by one, with time for the answer in between."""
        wire = self.connect()
        for part in parts:
            if not wire.closed:
                wire.protocol.data_received(part)  # type: ignore[union-attr]
            await settle()
        return wire


async def settle() -> None:
    for _ in range(12):
        await asyncio.sleep(0)


async def echo(call: Call) -> Reply:
    if call.body == b"crash":
        raise KeyError
    return Reply(call.body, headers=((b"x-asked", b"%d" % len(call.body)),))


def request(body: bytes = b'{"a":1}', *headers: bytes, start: bytes = b"POST / HTTP/1.1", length: bool = True) -> bytes:
    lines = [start, b"Host: x", b"X-Request-Id: r1", *headers]
    if length:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


CHUNKED = b"POST / HTTP/1.1\r\nX-Request-Id: r1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
TALKS = {
    "plain": request(),
    "without a body": request(b""),
    "two at once": request(b"1") + request(b"2"),
    "three, the second not plain": request(b"1") + request(start=b"GET / HTTP/1.1", body=b"") + request(b"3"),
    "three, the first not plain": request(b"", start=b"HEAD /livez HTTP/1.1") + request(b"2") + request(b"3"),
    "in chunks": CHUNKED,
    "in chunks and again": CHUNKED + request(b"2"),
    "wants to be told to go on": request(b"1", b"Expect: 100-continue"),
    "closes": request(b"1", b"Connection: close"),
    "closes, but says more": request(b"1", b"Connection: close") + request(b"2"),
    "HTTP/1.0": request(b"1", start=b"POST / HTTP/1.0"),
    "HTTP/1.0 that stays": request(b"1", b"Connection: keep-alive", start=b"POST / HTTP/1.0") * 2,
    "with a query": request(b"1", start=b"POST /?a=b HTTP/1.1"),
    "another method": request(b"1", start=b"PUT / HTTP/1.1"),
    "a probe": request(b"", start=b"GET /readyz HTTP/1.1"),
    "wants to upgrade": request(b"1", b"Connection: upgrade", b"Upgrade: h2c"),
    "wants to upgrade, without a body": request(b"", b"Connection: upgrade", b"Upgrade: websocket", length=False),
    "wants to upgrade, and goes on": request(b"1", b"Connection: upgrade", b"Upgrade: h2c") + request(b"2"),
    "no JSON type": request(b"1", b"Content-Type: text/html"),
    "too long": request(b"x" * 1025),
    "too long in chunks": b"POST / HTTP/1.1\r\nX-Request-Id: r1\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"200\r\n%b\r\n" % (b"y" * 512) * 3
    + b"0\r\n\r\n",
    "no HTTP": b"GARBAGE\r\n\r\n",
    "no HTTP after a request": request(b"1") + b"GARBAGE\r\n\r\n",
    "a wrong chunk": b"POST / HTTP/1.1\r\nX-Request-Id: r1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nX-Request-Id: r1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a handler that crashes": request(b"crash") + request(b"after"),
}


@pytest.mark.parametrize("talk", TALKS.values(), ids=TALKS)
async def test_whole_requests_are_answered_as_by_uvicorn(talk):
    """What one read brings is answered with the same bytes, and the connection ends or stays alike."""
    ours, theirs = [await Side(kind, echo).talk([talk]) for kind in (Protocol, HttpToolsProtocol)]
    assert (ours.sent, ours.closed, ours.reading) == (theirs.sent, theirs.closed, theirs.reading)
    assert ours.sent


@settings(deadline=None, max_examples=150)
@given(data=st.data(), name=st.sampled_from(sorted(TALKS)))
def test_requests_in_pieces_are_answered_as_by_uvicorn(data, name):
    """So it is wherever the reads cut what the caller says."""
    talk = TALKS[name]
    cuts = sorted(data.draw(st.sets(st.integers(1, len(talk) - 1), max_size=5)))
    parts = [talk[start:end] for start, end in zip([0, *cuts], [*cuts, len(talk)], strict=True)]

    async def both() -> list[Wire]:
        return [await Side(kind, echo).talk(parts) for kind in (Protocol, HttpToolsProtocol)]

    ours, theirs = asyncio.run(both())
    assert (ours.sent, ours.closed, ours.reading) == (theirs.sent, theirs.closed, theirs.reading)


async def test_a_plain_request_takes_the_direct_path(monkeypatch):
    """The comparison above would hold for a direct path that is never taken."""
    taken = []
    run = Exchange.run

    async def noting(self: Exchange, answer: protocol_module.Answer) -> None:
        taken.append(self)
        await run(self, answer)

    monkeypatch.setattr(Exchange, "run", noting)
    side = Side(Protocol, echo)
    wire = await side.talk([request(b"1"), request(b"2")])
    assert len(taken) == 2
    assert len(wire.writes) == 2
    assert side.state.total_requests == 2
    assert not side.state.tasks
    await side.talk([request(b"1")[:-1], b"1"])
    await side.talk([request(start=b"GET / HTTP/1.1")])
    assert len(taken) == 2


async def test_a_stalled_upload_ends_with_its_budget():
    """The caller is told, and the connection, which may still bring the rest, ends."""
    side = Side(Protocol, echo)
    wire = await side.talk([request(b"1234", b"X-Request-Timeout-Ms: 20")[:-3]])
    assert (wire.sent, side.service.load.in_flight) == (b"", 1)
    await asyncio.sleep(0.05)
    assert wire.sent.startswith(b"HTTP/1.1 504")
    assert (b"connection: close\r\n" in wire.sent, wire.closed, side.service.load.in_flight) == (True, True, 0)
    await settle()
    assert not side.state.tasks


class Slow:
    """A handler that waits to be let go, and knows whether it was cancelled."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.cancelled = False

    async def __call__(self, call: Call) -> Reply:
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return Reply(call.body)


async def test_a_request_in_flight_holds_the_next_one_back():
    """Two requests of one connection are answered in their order, one after the other."""
    slow = Slow()
    wire = await Side(Protocol, slow).talk([request(b"1"), request(b"2")])
    assert (wire.writes, wire.reading) == ([], False)
    slow.go.set()
    await settle()
    assert [wire.sent.count(b"HTTP/1.1 200"), wire.sent[-1:]] == [2, b"2"]
    assert wire.reading


async def test_the_work_ends_when_the_caller_goes():
    """A caller that hangs up is noticed while the handler works; nothing is sent to nobody."""
    slow = Slow()
    side = Side(Protocol, slow)
    wire = await side.talk([request()])
    await asyncio.sleep(0.05)
    wire.hang_up()
    await asyncio.sleep(0.05)
    assert slow.cancelled
    assert (wire.writes, side.service.load.in_flight, side.state.tasks) == ([], 0, set())


async def test_a_caller_that_goes_before_the_answer_gets_none():
    """Also where the handler was faster than the watcher."""
    slow = Slow()
    side = Side(Protocol, slow)
    wire = await side.talk([request()])
    wire.hang_up()
    slow.go.set()
    await settle()
    assert (wire.writes, side.state.tasks) == ([], set())


async def test_a_drain_lets_the_request_in_flight_end_its_connection():
    """The answer under way says that the connection closes; later ones are told so by uvicorn's headers."""
    slow = Slow()
    side = Side(Protocol, slow)
    wire = await side.talk([request()])
    wire.protocol.shutdown()  # type: ignore[union-attr]
    slow.go.set()
    await settle()
    assert b"connection: close\r\n\r\n" in wire.sent
    assert wire.closed
    side.state.default_headers = [(b"connection", b"close")]
    late = await side.talk([request()])
    assert late.sent.count(b"connection: close\r\n") == 1
    assert late.closed
    idle = side.connect()
    idle.protocol.shutdown()  # type: ignore[union-attr]
    assert idle.closed


async def test_a_drain_that_ends_cuts_work_off_with_an_answer():
    """A task cancelled by the server is answered with 500, as uvicorn does it, and the connection ends."""
    side = Side(Protocol, Slow())
    wire = await side.talk([request()])
    for task in side.state.tasks:
        task.cancel()
    await settle()
    assert wire.sent.startswith(b"HTTP/1.1 500")
    assert wire.closed


async def test_a_full_connection_is_waited_for():
    """An answer is not piled onto what the caller does not read."""
    side = Side(Protocol, echo)
    wire = side.connect()
    wire.protocol.pause_writing()  # type: ignore[union-attr]
    wire.protocol.data_received(request())  # type: ignore[union-attr]
    await settle()
    assert wire.writes == []
    wire.protocol.resume_writing()  # type: ignore[union-attr]
    await settle()
    assert wire.sent.startswith(b"HTTP/1.1 200")


async def test_a_header_that_would_split_the_answer_is_not_sent(caplog):
    """What a handler gives as a header cannot become another one."""

    async def split(_call: Call) -> Reply:
        return Reply(b"", headers=((b"x-a", b"1\r\nset-cookie: a=b"),))

    wire = await Side(Protocol, split).talk([request()])
    assert wire.sent.startswith(b"HTTP/1.1 500")
    assert b"set-cookie" not in wire.sent
    assert wire.closed
    assert "exchange_failed" in caplog.text


async def test_an_idle_connection_is_closed_in_time():
    """The time counts from the last answer; a connection that is used, or at work, stays."""
    go = asyncio.Event()

    async def wait_for_it(call: Call) -> Reply:
        if call.body == b"slow":
            await go.wait()
        return Reply(call.body)

    side = Side(Protocol, wait_for_it)
    side.config.timeout_keep_alive = 0.2  # type: ignore[assignment]
    wire = await side.talk([request()])
    await asyncio.sleep(0.12)
    wire.protocol.data_received(request())  # type: ignore[union-attr]
    await asyncio.sleep(0.12)
    assert not wire.closed
    wire.protocol.data_received(request() + request(b"slow"))  # type: ignore[union-attr]
    await asyncio.sleep(0.5)
    assert not wire.closed
    go.set()
    await asyncio.sleep(0.12)
    assert not wire.closed
    await asyncio.sleep(0.2)
    assert wire.closed


async def test_a_connection_that_is_gone_leaves_no_timer():
    """A timer would keep what belongs to it for minutes."""
    wire = await Side(Protocol, echo).talk([request()])
    assert isinstance(wire.protocol, Protocol)
    assert wire.protocol.timeout_keep_alive_task is not None
    wire.hang_up()
    await settle()
    assert wire.protocol.timeout_keep_alive_task.cancelled()
