"""What is written within one turn of the event loop is sent together, in order, and nothing is kept back."""

import asyncio

import pytest

from chassis.server.joined_writes import JoinedWrites, TurnWrites


class Kernel(asyncio.Transport):
    """Notes what is handed to it."""

    def __init__(self) -> None:
        super().__init__({"peername": "caller"})
        self.sent: list[bytes] = []
        self.gone = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent.append(bytes(data))

    def close(self) -> None:
        self.sent.append(b"closed")

    def is_closing(self) -> bool:
        return self.gone


async def test_head_and_body_go_together():
    """Two writes are one, at once; the next answer is one of its own."""
    kernel = Kernel()
    joined = JoinedWrites(kernel)
    for _ in range(2):
        joined.write(b"head ")
        joined.write(b"body")
    assert kernel.sent == [b"head body"] * 2
    await asyncio.sleep(0)
    assert kernel.sent == [b"head body"] * 2


async def test_a_head_alone_is_sent_with_the_turn():
    """An answer to HEAD has no body to wait for."""
    kernel = Kernel()
    JoinedWrites(kernel).write(b"head")
    assert kernel.sent == []
    await asyncio.sleep(0)
    assert kernel.sent == [b"head"]


async def test_nothing_is_sent_to_a_caller_who_has_gone():
    """A connection that was lost within the turn takes no more."""
    kernel = Kernel()
    JoinedWrites(kernel).write(b"head")
    kernel.gone = True
    await asyncio.sleep(0)
    assert kernel.sent == []


async def test_what_was_held_goes_before_the_end():
    """Closing sends first; everything else is the transport's own."""
    kernel = Kernel()
    joined = JoinedWrites(kernel)
    joined.write(b"head")
    joined.close()
    assert kernel.sent == [b"head", b"closed"]
    assert joined.get_extra_info("peername") == "caller"


@pytest.fixture
def turn_writes() -> TurnWrites:
    return TurnWrites()


async def test_answers_without_waiting_go_together(turn_writes):
    """Of three requests that came in one turn the first two wait for the third, which sends all, in their order."""
    sent: list[str] = []
    kernels = [Kernel() for _ in range(3)]
    for _ in kernels:
        turn_writes.expect()
    for number, kernel in enumerate(kernels):
        turn_writes.send(b"%d" % number, JoinedWrites(kernel), begun=turn_writes.begin())
        sent.append("".join(each.sent[0].decode() for each in kernels if each.sent))
    assert sent == ["", "", "012"]


async def test_a_lone_answer_goes_at_once(turn_writes):
    """There is nothing to wait for."""
    kernel = Kernel()
    turn_writes.expect()
    turn_writes.send(b"1", JoinedWrites(kernel), begun=turn_writes.begin())
    assert kernel.sent == [b"1"]


async def test_an_answer_that_had_to_wait_goes_at_once(turn_writes):
    """Also while others come in: the caller's next request may be all that they wait for."""
    slow, quick = Kernel(), Kernel()
    turn_writes.expect()
    begun = turn_writes.begin()
    await asyncio.sleep(0)
    turn_writes.expect()
    turn_writes.send(b"slow", JoinedWrites(slow), begun=begun)
    assert slow.sent == [b"slow"]
    turn_writes.send(b"quick", JoinedWrites(quick), begun=turn_writes.begin())
    assert quick.sent == [b"quick"]


async def test_nobody_waits_longer_than_the_turn(turn_writes):
    """Where the others that came are not answered at once, or their work was cancelled before it began."""
    kernel = Kernel()
    turn_writes.expect()
    turn_writes.expect()
    turn_writes.send(b"1", JoinedWrites(kernel), begun=turn_writes.begin())
    assert kernel.sent == []
    await asyncio.sleep(0)
    assert kernel.sent == [b"1"]


async def test_a_connection_that_fails_leaves_the_others_their_answers(turn_writes, caplog):
    """And is told in the log."""

    class Broken(Kernel):
        def write(self, data: bytes | bytearray | memoryview) -> None:
            raise RuntimeError("the handler is closed")

    kernel = Kernel()
    turn_writes.expect()
    turn_writes.expect()
    turn_writes.send(b"1", JoinedWrites(Broken()), begun=turn_writes.begin())
    turn_writes.send(b"2", JoinedWrites(kernel), begun=turn_writes.begin())
    assert kernel.sent == [b"2"]
    assert "write_failed" in caplog.text
