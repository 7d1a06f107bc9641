"""What is written within one turn of the event loop is sent together, in order, and nothing is kept back."""

import asyncio

import pytest

from chassis.server.outbox import OneWrite, Outbox


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
    joined = OneWrite(kernel)
    for _ in range(2):
        joined.write(b"head ")
        joined.write(b"body")
    assert kernel.sent == [b"head body"] * 2
    await asyncio.sleep(0)
    assert kernel.sent == [b"head body"] * 2


async def test_a_head_alone_is_sent_with_the_turn():
    """An answer to HEAD has no body to wait for."""
    kernel = Kernel()
    OneWrite(kernel).write(b"head")
    assert kernel.sent == []
    await asyncio.sleep(0)
    assert kernel.sent == [b"head"]


async def test_nothing_is_sent_to_a_caller_who_has_gone():
    """A connection that was lost within the turn takes no more."""
    kernel = Kernel()
    OneWrite(kernel).write(b"head")
    kernel.gone = True
    await asyncio.sleep(0)
    assert kernel.sent == []


async def test_what_was_held_goes_before_the_end():
    """Closing sends first; everything else is the transport's own."""
    kernel = Kernel()
    joined = OneWrite(kernel)
    joined.write(b"head")
    joined.close()
    assert kernel.sent == [b"head", b"closed"]
    assert joined.get_extra_info("peername") == "caller"


@pytest.fixture
def outbox() -> Outbox:
    return Outbox()


async def test_answers_without_waiting_go_together(outbox):
    """Of three requests that came in one turn the first two wait for the third, which sends all, in their order."""
    sent: list[str] = []
    kernels = [Kernel() for _ in range(3)]
    for _ in kernels:
        outbox.expect()
    for number, kernel in enumerate(kernels):
        outbox.send(b"%d" % number, OneWrite(kernel), begun=outbox.begin())
        sent.append("".join(each.sent[0].decode() for each in kernels if each.sent))
    assert sent == ["", "", "012"]


async def test_a_lone_answer_goes_at_once(outbox):
    """There is nothing to wait for."""
    kernel = Kernel()
    outbox.expect()
    outbox.send(b"1", OneWrite(kernel), begun=outbox.begin())
    assert kernel.sent == [b"1"]


async def test_an_answer_that_had_to_wait_goes_at_once(outbox):
    """Also while others come in: the caller's next request may be all that they wait for."""
    slow, quick = Kernel(), Kernel()
    outbox.expect()
    begun = outbox.begin()
    await asyncio.sleep(0)
    outbox.expect()
    outbox.send(b"slow", OneWrite(slow), begun=begun)
    assert slow.sent == [b"slow"]
    outbox.send(b"quick", OneWrite(quick), begun=outbox.begin())
    assert quick.sent == [b"quick"]


async def test_nobody_waits_longer_than_the_turn(outbox):
    """Where the others that came are not answered at once, or their work was cancelled before it began."""
    kernel = Kernel()
    outbox.expect()
    outbox.expect()
    outbox.send(b"1", OneWrite(kernel), begun=outbox.begin())
    assert kernel.sent == []
    await asyncio.sleep(0)
    assert kernel.sent == [b"1"]


async def test_a_connection_that_fails_leaves_the_others_their_answers(outbox, caplog):
    """And is told in the log."""

    class Broken(Kernel):
        def write(self, data: bytes | bytearray | memoryview) -> None:
            raise RuntimeError("the handler is closed")

    kernel = Kernel()
    outbox.expect()
    outbox.expect()
    outbox.send(b"1", OneWrite(Broken()), begun=outbox.begin())
    outbox.send(b"2", OneWrite(kernel), begun=outbox.begin())
    assert kernel.sent == [b"2"]
    assert "write_failed" in caplog.text
