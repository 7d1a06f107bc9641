"""When a connection waits, answers, times out, is cancelled and closes."""

import asyncio

import pytest

from chassis.call import Call, Reply
from chassis.server.protocol import FunctionConnection
from tests.chassis.server.wire import ProtocolServer, echo, request, settle
from tests.virtual_time import on_virtual_time


@on_virtual_time
async def test_a_stalled_upload_times_out(clock):
    """A stalled upload gets 504, and its connection closes because the rest may still arrive."""
    side = ProtocolServer(FunctionConnection, echo)
    wire = await side.talk([request(b"1234", b"X-Request-Timeout-Ms: 20")[:-3]])
    assert (wire.sent, side.service.load.in_flight) == (b"", 1)
    await clock.advance(0.05)
    assert wire.sent.startswith(b"HTTP/1.1 504")
    assert (b"connection: close\r\n" in wire.sent, wire.closed, side.service.load.in_flight) == (True, True, 0)
    await settle()
    assert not side.state.tasks


class Slow:
    """A handler that waits for a signal and records its cancellation."""

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


async def test_requests_of_one_connection_are_answered_in_order():
    """The second request of a connection waits until the first is answered."""
    slow = Slow()
    wire = await ProtocolServer(FunctionConnection, slow).talk([request(b"1"), request(b"2")])
    assert wire.writes == []
    slow.go.set()
    await settle()
    assert [wire.sent.count(b"HTTP/1.1 200"), wire.sent[-1:]] == [2, b"2"]


async def test_simultaneous_requests_are_answered_together():
    """Answers to ten connections are sent once the last is ready, so that a reader wakes up once."""
    sent_before: list[int] = []

    async def note(call: Call) -> Reply:
        sent_before.append(sum(len(wire.writes) for wire in wires))
        return Reply(call.body)

    side = ProtocolServer(FunctionConnection, note)
    await side.service.start()
    wires = [side.connect() for _ in range(10)]
    for number, wire in enumerate(wires):
        wire.protocol.data_received(request(b"%d" % number))
    await settle()
    assert sent_before == [0] * 10
    assert [wire.sent[-1:] for wire in wires] == [b"%d" % number for number in range(10)]


@on_virtual_time
async def test_a_disconnect_cancels_the_handler(clock):
    """The server notices a disconnect while the handler works, cancels the handler and sends nothing."""
    slow = Slow()
    side = ProtocolServer(FunctionConnection, slow)
    wire = await side.talk([request()])
    await clock.advance(0.05)
    wire.hang_up()
    await clock.advance(0.05)
    assert slow.cancelled
    assert (wire.writes, side.service.load.in_flight, side.state.tasks) == ([], 0, set())


async def test_a_disconnect_before_the_answer_suppresses_it():
    """A caller that disconnects gets no answer, even if the handler finishes before the disconnect is noticed."""
    slow = Slow()
    side = ProtocolServer(FunctionConnection, slow)
    wire = await side.talk([request()])
    wire.hang_up()
    slow.go.set()
    await settle()
    assert (wire.writes, side.state.tasks) == ([], set())


async def test_draining_closes_a_connection_after_its_answer():
    """The answer in flight says that the connection closes; later answers carry uvicorn's default header."""
    slow = Slow()
    side = ProtocolServer(FunctionConnection, slow)
    wire = await side.talk([request()])
    wire.protocol.shutdown()
    slow.go.set()
    await settle()
    assert b"connection: close\r\n\r\n" in wire.sent
    assert wire.closed
    side.state.default_headers = [(b"connection", b"close")]
    late = await side.talk([request()])
    assert late.sent.count(b"connection: close\r\n") == 1
    assert late.closed
    idle = side.connect()
    idle.protocol.shutdown()
    assert idle.closed


async def test_a_task_cancelled_by_the_server_is_answered():
    """A task cancelled by the server gets 500, as in uvicorn, and its connection closes."""
    side = ProtocolServer(FunctionConnection, Slow())
    wire = await side.talk([request()])
    for task in side.state.tasks:
        task.cancel()
    await settle()
    assert wire.sent.startswith(b"HTTP/1.1 500")
    assert wire.closed


async def test_an_answer_waits_for_a_full_connection():
    """The server sends no answer while the caller does not read."""
    side = ProtocolServer(FunctionConnection, echo)
    wire = side.connect()
    wire.protocol.pause_writing()
    wire.protocol.data_received(request())
    await settle()
    assert wire.writes == []
    wire.protocol.resume_writing()
    await settle()
    assert wire.sent.startswith(b"HTTP/1.1 200")


@on_virtual_time
async def test_an_idle_connection_times_out(clock):
    """The idle time counts from the last answer; a connection that is used or busy stays open."""
    go = asyncio.Event()

    async def wait_for_it(call: Call) -> Reply:
        if call.body == b"slow":
            await go.wait()
        return Reply(call.body)

    side = ProtocolServer(FunctionConnection, wait_for_it)
    side.config.timeout_keep_alive = 0.2  # type: ignore[assignment]
    wire = await side.talk([request()])
    await clock.advance(0.12)
    wire.protocol.data_received(request())
    await clock.advance(0.12)
    assert not wire.closed
    wire.protocol.data_received(request() + request(b"slow"))
    await clock.advance(0.5)
    assert not wire.closed
    go.set()
    await clock.advance(0.12)
    assert not wire.closed
    await clock.advance(0.2)
    assert wire.closed


@on_virtual_time
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
    ids=["no bytes", "half a head", "half a second head", "an empty line", "refused early", "refused early, then more", "refused early, then complete"],
)  # fmt: skip
async def test_a_connection_without_a_complete_request_times_out(parts, clock):
    """The idle timeout applies before a complete head and after the answer, even if further bytes arrived."""
    side = ProtocolServer(FunctionConnection, echo)
    side.config.timeout_keep_alive = 0.1  # type: ignore[assignment]
    wire = await side.talk(parts)
    await clock.advance(0.05)
    assert not wire.closed
    await clock.advance(0.1)
    assert wire.closed


@on_virtual_time
async def test_a_slow_head_times_out(clock):
    """A head that arrives byte by byte does not extend the idle timeout."""
    side = ProtocolServer(FunctionConnection, echo)
    side.config.timeout_keep_alive = 0.2  # type: ignore[assignment]
    wire = side.connect()
    for byte in request():
        if wire.closed:
            break
        wire.protocol.data_received(bytes([byte]))
        await clock.advance(0.02)
    assert wire.closed
    assert wire.sent == b""


async def test_a_closed_connection_cancels_its_timer():
    """A closed connection cancels its timer, which would otherwise keep its objects in memory for minutes."""
    wire = await ProtocolServer(FunctionConnection, echo).talk([request()])
    assert isinstance(wire.protocol, FunctionConnection)
    timer = wire.protocol.timeout_keep_alive_task
    assert timer is not None
    wire.hang_up()
    await settle()
    assert timer.cancelled()
