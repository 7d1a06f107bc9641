"""
What goes out of a server: as few writes as possible, each of which may wake a reader.

A write to a connection of the same machine costs its few microseconds, and another ten where the reader sleeps and has to
be woken on its processor (docs/adr/0001-own-entry-point.md). Behind Knative the reader is the queue-proxy of the same pod.
"""

import asyncio
import logging
from typing import Any

log = logging.getLogger("chassis")


class OneWrite:
    """
    A transport that sends what is written within one turn of the event loop together.

    uvicorn writes an answer's head and its body one after the other, and uvloop hands each write to the kernel at
    once: two calls, two packets, and a reader that may be woken twice.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._held: list[bytes] = []
        self._call_soon = asyncio.get_running_loop().call_soon

    def write(self, data: bytes) -> None:
        """Send *data* soon; at once with what was written before it in this turn."""
        self._held.append(data)
        if len(self._held) == 1:
            self._call_soon(self.flush)
        else:
            self.flush()

    def write_now(self, data: bytes) -> None:
        """Send *data* at once, after what has not been sent."""
        self.flush()
        if not self._transport.is_closing():
            self._transport.write(data)

    def hold(self, data: bytes) -> None:
        """Keep *data* for the next `flush`; whoever calls this sees to one."""
        self._held.append(data)

    def flush(self) -> None:
        """Send what has not been sent; nothing where the caller has gone meanwhile."""
        if self._held:
            held = b"".join(self._held)
            self._held.clear()
            if not self._transport.is_closing():
                self._transport.write(held)

    def is_closing(self) -> bool:
        """Tell whether the caller has gone, or is let go."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Send what has not been sent, and close."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Outbox:
    """
    Sends the answers of requests that came together, together.

    A request that is answered without waiting for anything, as from SQLite, is over before the next one is looked at. Were
    its answer sent at once, the reader would wake, take it, and sleep again, for each of them. So such an answer waits for
    those of the requests that the same turn of the event loop brought. One that had to wait goes out at once: what came
    with it has long gone its own way.

    One for all connections of an event loop.
    """

    def __init__(self) -> None:
        self._coming = 0
        self._turn = 0
        self._turn_is_over: asyncio.Handle | None = None
        self._held: list[OneWrite] = []

    def expect(self) -> None:
        """Note that a request has come, which `begin` will be called for."""
        self._coming += 1

    def begin(self) -> int | None:
        """Begin with a request that has come; return the turn in which that is, None where no other one follows in it."""
        self._coming -= 1
        if not self._coming:
            return None
        if self._turn_is_over is None:
            self._turn_is_over = asyncio.get_running_loop().call_soon(self._end_turn)
        return self._turn

    def send(self, answer: bytes, out: OneWrite, *, begun: int | None) -> None:
        """Send *answer* by *out* to a request that was *begun* in that turn: at once, or with others at its end."""
        out.hold(answer)
        self._held.append(out)
        if begun != self._turn:
            self._send_held()

    def _end_turn(self) -> None:
        self._turn += 1
        self._turn_is_over = None
        self._send_held()

    def _send_held(self) -> None:
        held, self._held = self._held, []
        for out in held:
            try:
                out.flush()
            except Exception:
                # What is wrong with one connection is no reason to leave the others without their answers.
                log.exception("write_failed")
