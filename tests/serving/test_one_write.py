"""What is written within one turn of the event loop is sent together, in order, and nothing is kept back."""

import asyncio

from recsys.serving.protocol import OneWrite


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
