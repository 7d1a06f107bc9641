"""The server sends everything written in one turn of the event loop together and in order, and keeps nothing back."""

import asyncio

import pytest

from chassis.server.joined_writes import JoinedWrites, TurnWrites


class RecordingTransport(asyncio.Transport):
    """A transport that records what is written to it."""

    def __init__(self) -> None:
        super().__init__({"peername": "caller"})
        self.sent: list[bytes] = []
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent.append(bytes(data))

    def close(self) -> None:
        self.sent.append(b"closed")

    def is_closing(self) -> bool:
        return self.closing


async def test_head_and_body_are_sent_in_one_write():
    """The head and the body of an answer are sent in one write, and the next answer in another."""
    transport = RecordingTransport()
    joined = JoinedWrites(transport)
    for _ in range(2):
        joined.write(b"head ")
        joined.write(b"body")
    assert transport.sent == [b"head body"] * 2
    await asyncio.sleep(0)
    assert transport.sent == [b"head body"] * 2


async def test_a_head_alone_is_sent_at_the_end_of_the_turn():
    """An answer without a body, as to HEAD, is sent at the end of the turn."""
    transport = RecordingTransport()
    JoinedWrites(transport).write(b"head")
    assert transport.sent == []
    await asyncio.sleep(0)
    assert transport.sent == [b"head"]


async def test_nothing_is_sent_after_a_disconnect():
    """A connection lost within the turn receives no more bytes."""
    transport = RecordingTransport()
    JoinedWrites(transport).write(b"head")
    transport.closing = True
    await asyncio.sleep(0)
    assert transport.sent == []


async def test_held_bytes_are_sent_before_close():
    """Closing sends the held bytes first; every other call goes to the wrapped transport."""
    transport = RecordingTransport()
    joined = JoinedWrites(transport)
    joined.write(b"head")
    joined.close()
    assert transport.sent == [b"head", b"closed"]
    assert joined.get_extra_info("peername") == "caller"


@pytest.fixture
def turn_writes() -> TurnWrites:
    return TurnWrites()


async def test_simultaneous_answers_are_sent_together(turn_writes):
    """Of three requests that arrive in one turn, the last sends all three answers in order."""
    sent: list[str] = []
    transports = [RecordingTransport() for _ in range(3)]
    for _ in transports:
        turn_writes.expect()
    for number, transport in enumerate(transports):
        turn_writes.send(b"%d" % number, JoinedWrites(transport), begun=turn_writes.begin())
        sent.append("".join(each.sent[0].decode() for each in transports if each.sent))
    assert sent == ["", "", "012"]


async def test_a_single_answer_is_sent_immediately(turn_writes):
    """A single answer does not wait."""
    transport = RecordingTransport()
    turn_writes.expect()
    turn_writes.send(b"1", JoinedWrites(transport), begun=turn_writes.begin())
    assert transport.sent == [b"1"]


async def test_an_answer_that_waited_is_sent_immediately(turn_writes):
    """An answer whose handler had to wait is sent immediately, because the next request may depend on it."""
    slow, quick = RecordingTransport(), RecordingTransport()
    turn_writes.expect()
    begun = turn_writes.begin()
    await asyncio.sleep(0)
    turn_writes.expect()
    turn_writes.send(b"slow", JoinedWrites(slow), begun=begun)
    assert slow.sent == [b"slow"]
    turn_writes.send(b"quick", JoinedWrites(quick), begun=turn_writes.begin())
    assert quick.sent == [b"quick"]


async def test_answers_wait_no_longer_than_one_turn(turn_writes):
    """An answer is sent at the end of the turn even if the other expected answers are not ready."""
    transport = RecordingTransport()
    turn_writes.expect()
    turn_writes.expect()
    turn_writes.send(b"1", JoinedWrites(transport), begun=turn_writes.begin())
    assert transport.sent == []
    await asyncio.sleep(0)
    assert transport.sent == [b"1"]


async def test_a_failed_connection_does_not_affect_the_others(turn_writes, caplog):
    """The other connections get their answers, and the failure is logged."""

    class Broken(RecordingTransport):
        def write(self, data: bytes | bytearray | memoryview) -> None:
            raise RuntimeError("the handler is closed")

    transport = RecordingTransport()
    turn_writes.expect()
    turn_writes.expect()
    turn_writes.send(b"1", JoinedWrites(Broken()), begun=turn_writes.begin())
    turn_writes.send(b"2", JoinedWrites(transport), begun=turn_writes.begin())
    assert transport.sent == [b"2"]
    assert "write_failed" in caplog.text
