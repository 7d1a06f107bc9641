"""
The direct path for plain requests answers as uvicorn's own way does, byte for byte, however the bytes come in.

A wire stands for the connection, so that a test decides what one read brings and when the caller goes.

Where both ways are meant to differ from uvicorn (`OURS`), they answer as uvicorn answers what should have counted.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from chassis.call import Call, Handler, Reply
from chassis.environment import Reader
from chassis.server import protocol as protocol_module
from chassis.server.asgi import Shell
from chassis.server.limits import Limits
from chassis.server.protocol import Exchange, Protocol
from chassis.server.service import Service
from chassis.server.settings import ServingSettings

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
WRONG_CHUNK = b"POST / HTTP/1.1\r\nX-Request-Id: r1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n"
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
    "in several chunks, after another": request(b"1") + CHUNKED,
    "no JSON type": request(b"1", b"Content-Type: text/html"),
    "too long": request(b"x" * 1025),
    "too long in chunks": b"POST / HTTP/1.1\r\nX-Request-Id: r1\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"200\r\n%b\r\n" % (b"y" * 512) * 3
    + b"0\r\n\r\n",
    "no HTTP": b"GARBAGE\r\n\r\n",
    "a wrong chunk": WRONG_CHUNK,
    "two lengths": b"POST / HTTP/1.1\r\nX-Request-Id: r1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a handler that crashes": request(b"crash") + request(b"after"),
}

H2C = (b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAMAAABk", b"Upgrade: h2c")
WEBSOCKET = (b"Connection: upgrade", b"Upgrade: websocket")
TRAILERS = CHUNKED[:-2] + b"X-Request-Id: r9\r\nContent-Type: text/html\r\nExpect: 100-continue\r\n\r\n"
# What the caller says, and what counts of it, where uvicorn has to hear it in these parts.
OURS: dict[str, tuple[bytes, bytes | list[bytes]]] = {
    "no HTTP after a request": (request(b"1") + b"GARBAGE\r\n\r\n", [request(b"1"), b"GARBAGE\r\n\r\n"]),
    "no HTTP after two": (request(b"1") * 2 + b"GARBAGE\r\n\r\n", [request(b"1") * 2, b"GARBAGE\r\n\r\n"]),
    "a wrong chunk after a request": (request(b"1") + WRONG_CHUNK, [request(b"1"), WRONG_CHUNK]),
    "offers to upgrade": (request(b"1", *H2C), request(b"1")),
    "offers to upgrade, without a body": (request(b"", *WEBSOCKET, length=False), request(b"", length=False)),
    "offers to upgrade, and goes on": (request(b"1", *H2C) + request(b"2"), request(b"1") + request(b"2")),
    "offers to upgrade again and again": (request(b"1", *H2C) * 3, request(b"1") * 3),
    "offers to upgrade after another": (request(b"1") + request(b"2", *WEBSOCKET), request(b"1") + request(b"2")),
    "offers to upgrade a probe": (request(b"", *H2C, start=b"GET /livez HTTP/1.1"), request(start=b"GET /livez HTTP/1.1")),
    "offers to upgrade with a request as its body": (request(request(b"2"), *H2C), request(request(b"2"))),
    "offers to upgrade in chunks": (CHUNKED.replace(b"\r\n", b"\r\nConnection: upgrade\r\nUpgrade: foo\r\n", 1), CHUNKED),
    "offers to upgrade and closes": (
        request(b"1", b"Connection: upgrade, close", b"Upgrade: h2c"), request(b"1", b"Connection: close")),
    "offers to upgrade, wants to be told to go on": (
        request(b"1", b"Expect: 100-continue", *H2C), request(b"1", b"Expect: 100-continue")),
    "offers to upgrade, two lengths": (
        request(b"ab", b"Content-Length: 1", *H2C), request(b"ab", b"Content-Length: 1")),
    "trailers": (TRAILERS, CHUNKED),
    "trailers, and goes on": (TRAILERS + request(b"2"), CHUNKED + request(b"2")),
}  # fmt: skip
SAID_AND_MEANT = {name: (talk, talk) for name, talk in TALKS.items()} | OURS


def cut(talk: bytes, cuts: set[int]) -> list[bytes]:
    borders = [0, *sorted(cuts), len(talk)]
    return [talk[start:end] for start, end in pairwise(borders)]


def parts(meant: bytes | list[bytes]) -> list[bytes]:
    return [meant] if isinstance(meant, bytes) else meant


@pytest.mark.parametrize(("said", "meant"), SAID_AND_MEANT.values(), ids=SAID_AND_MEANT)
async def test_whole_requests_are_answered_as_by_uvicorn(said, meant):
    """What one read brings is answered with the same bytes, and the connection ends or stays alike."""
    ours, theirs = await Side(Protocol, echo).talk([said]), await Side(HttpToolsProtocol, echo).talk(parts(meant))
    assert (ours.sent, ours.closed, ours.reading) == (theirs.sent, theirs.closed, theirs.reading)
    assert ours.sent


@settings(deadline=None, max_examples=200)
@given(data=st.data(), name=st.sampled_from(sorted(SAID_AND_MEANT)))
def test_requests_in_pieces_are_answered_as_by_uvicorn(data, name):
    """So it is wherever the reads cut what the caller says."""
    said, meant = SAID_AND_MEANT[name]
    cuts = data.draw(st.sets(st.integers(1, len(said) - 1), max_size=5))

    async def both() -> list[Wire]:
        # Where both hear the same, they hear it in the same parts: uvicorn answers some of them while they come.
        heard = cut(said, cuts) if said == meant else parts(meant)
        return [await Side(Protocol, echo).talk(cut(said, cuts)), await Side(HttpToolsProtocol, echo).talk(heard)]

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


@pytest.mark.parametrize("target", [b"/", b"x:443", b"http://x/"])
async def test_a_tunnel_is_refused(target):
    """After CONNECT comes no HTTP, so nothing of it is read as such."""
    tunnel = request(request(b"2"), start=b"CONNECT %b HTTP/1.1" % target)
    wire = await Side(Protocol, echo).talk([tunnel])
    assert wire.sent.startswith(b"HTTP/1.1 405")
    assert wire.sent.count(b"HTTP/1.1") == 1
    assert (b"allow: GET, HEAD, POST\r\n" in wire.sent, wire.closed) == (True, True)


def headed(length: int) -> bytes:
    """Return a request whose head has *length* bytes or up to twenty more."""
    return request(b"1", b"X-A: " + b"a" * (length - 80))


@pytest.mark.parametrize("length", [10_000, Limits.head_bytes - 200, Limits.head_bytes + 200, 200_000])
@pytest.mark.parametrize("size", [4096, 100_000, 1_000_000])
async def test_a_head_has_a_limit(length, size):
    """Beyond it the connection ends with 431, whether the head comes whole or in parts."""
    talk = headed(length)
    wire = await Side(Protocol, echo).talk(cut(talk, set(range(size, len(talk), size))))
    long = length > Limits.head_bytes
    assert wire.sent.startswith(b"HTTP/1.1 431" if long else b"HTTP/1.1 200")
    assert (b'"head-too-large"' in wire.sent, wire.sent.count(b"HTTP/1.1"), wire.closed) == (long, 1, long)


async def test_what_is_no_head_does_not_count_as_one():
    """Long bodies, in a piece, in chunks or in parts, and many requests in one read leave the limit alone."""
    side = Side(Protocol, echo)
    long = b"x" * 3 * Limits.head_bytes
    chunks = CHUNKED.partition(b"3\r\n")[0] + b"4\r\nabcd\r\n" * 50_000 + b"0\r\n\r\n"
    for talk in (request(long), chunks):
        refused = await side.talk(cut(talk, set(range(20_000, len(talk), 20_000))))
        assert (refused.sent.count(b"HTTP/1.1 413"), refused.sent.count(b"HTTP/1.1 ")) == (1, 1)
        refused.protocol.data_received(request(b"1"))  # type: ignore[union-attr]
        await settle()
        assert refused.sent.endswith(b"\r\n\r\n1")
    wire = side.connect()
    wire.protocol.data_received(request(b"1") * 1000)  # type: ignore[union-attr]
    while wire.sent.count(b"HTTP/1.1 200") < 1000:
        await settle()


async def test_trailers_have_the_same_limit():
    """They are kept nowhere, but parsed, and the parser keeps one as long as it comes."""
    wire = await Side(Protocol, echo).talk([CHUNKED[:-2], b"X-A: ", *[b"a" * 30_000] * 3])
    assert wire.sent.startswith(b"HTTP/1.1 431")
    assert wire.closed


async def test_many_chunks_are_put_together_uvicorns_way(monkeypatch):
    """Joining them one by one would take the square of their number."""
    handed_over = []
    on_body = HttpToolsProtocol.on_body

    def noting(self: HttpToolsProtocol, body: bytes) -> None:
        handed_over.append(body)
        on_body(self, body)

    monkeypatch.setattr(HttpToolsProtocol, "on_body", noting)
    side = Side(Protocol, echo)
    assert (await side.talk([CHUNKED])).sent.endswith(b"\r\n\r\nabcde")
    assert handed_over == [b"abc", b"de"]
    assert (await side.talk([CHUNKED.replace(b"2\r\nde\r\n", b"")])).sent.endswith(b"\r\n\r\nabc")
    assert len(handed_over) == 2


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
    assert wire.writes == []
    slow.go.set()
    await settle()
    assert [wire.sent.count(b"HTTP/1.1 200"), wire.sent[-1:]] == [2, b"2"]


async def test_requests_that_come_together_are_answered_together():
    """The answers of ten connections go out once the last of them is there: a reader is woken once."""
    sent_before: list[int] = []

    async def note(call: Call) -> Reply:
        sent_before.append(sum(len(wire.writes) for wire in wires))
        return Reply(call.body)

    side = Side(Protocol, note)
    await side.service.start()
    wires = [side.connect() for _ in range(10)]
    for number, wire in enumerate(wires):
        wire.protocol.data_received(request(b"%d" % number))  # type: ignore[union-attr]
    await settle()
    assert sent_before == [0] * 10
    assert [wire.sent[-1:] for wire in wires] == [b"%d" % number for number in range(10)]


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


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b"POST / HT"],
        [request(b"1"), b"POST / HTTP/1.1\r\nHost: x\r\n"],
        [b"\r\n"],
        [request(b"x" * 2000)[:300]],
        [request(b"x" * 2000)[:300], b"x"],
        [request(b"1", b"Content-Type: text/html")[:-1], b"1"],
    ],
    ids=["says nothing", "half a head", "half a next head", "an empty line", "refused early", "and goes on", "and is whole"],
)  # fmt: skip
async def test_a_connection_without_a_request_is_idle(parts):
    """Whatever it brought: without a whole head, or after the answer, its time runs."""
    side = Side(Protocol, echo)
    side.config.timeout_keep_alive = 0.1  # type: ignore[assignment]
    wire = await side.talk(parts)
    await asyncio.sleep(0.05)
    assert not wire.closed
    await asyncio.sleep(0.1)
    assert wire.closed


async def test_bytes_of_a_head_do_not_buy_time():
    """The head of a request has to be whole in time, however slowly it comes."""
    side = Side(Protocol, echo)
    side.config.timeout_keep_alive = 0.2  # type: ignore[assignment]
    wire = side.connect()
    for byte in request():
        if wire.closed:
            break
        wire.protocol.data_received(bytes([byte]))  # type: ignore[union-attr]
        await asyncio.sleep(0.02)
    assert wire.closed
    assert wire.sent == b""


async def test_a_connection_that_is_gone_leaves_no_timer():
    """A timer would keep what belongs to it for minutes."""
    wire = await Side(Protocol, echo).talk([request()])
    assert isinstance(wire.protocol, Protocol)
    timer = wire.protocol.timeout_keep_alive_task
    assert timer is not None
    wire.hang_up()
    await settle()
    assert timer.cancelled()
