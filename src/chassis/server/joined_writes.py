"""Join the writes of one answer, and of the answers of one turn: each write may wake its reader."""

import asyncio
import logging
from typing import Any

log = logging.getLogger("chassis")


class JoinedWrites:
    """
    A transport that sends together what is written within one turn of the event loop.

    uvicorn writes an answer's head and its body separately, and uvloop hands each write to the kernel immediately:
    two calls, two packets, and a reader that may be woken twice. docs/adr/0001-own-entry-point.md has the figures.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._unsent: list[bytes] = []
        self._call_soon = asyncio.get_running_loop().call_soon

    def write(self, data: bytes) -> None:
        """Send *data* at the end of this turn, or immediately if the turn has already written something."""
        self._unsent.append(data)
        if len(self._unsent) == 1:
            self._call_soon(self.flush)
        else:
            self.flush()

    def write_now(self, data: bytes) -> None:
        """Send *data* immediately, after everything that is unsent."""
        self.flush()
        if not self._transport.is_closing():
            self._transport.write(data)

    def hold(self, data: bytes) -> None:
        """Keep *data* until `flush` is called."""
        self._unsent.append(data)

    def flush(self) -> None:
        """Send everything that is unsent; drop it if the connection is closing."""
        if self._unsent:
            unsent = b"".join(self._unsent)
            self._unsent.clear()
            if not self._transport.is_closing():
                self._transport.write(unsent)

    def is_closing(self) -> bool:
        """Tell whether the connection is closed or closing."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Send everything that is unsent, and close the connection."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class TurnWrites:
    """
    Sends together the answers of requests that arrived in the same turn of the event loop.

    A request that waits for nothing, such as a read from SQLite, is answered before the service takes the next request. If each
    answer were sent immediately, the reader would wake for it and sleep again. Such an answer is therefore held until
    the last request of the turn is answered, or the turn ends. A request that had to wait is answered immediately,
    because the other requests of its turn no longer keep pace with it.

    All connections of an event loop share one instance.
    """

    def __init__(self) -> None:
        self._expected = 0
        self._turn = 0
        self._turn_end: asyncio.Handle | None = None
        self._held: list[JoinedWrites] = []

    def expect(self) -> None:
        """Note a request that has arrived. `begin` must be called for it."""
        self._expected += 1

    def begin(self) -> int | None:
        """Begin with an expected request. Return the number of the turn, or None if no other request is expected."""
        self._expected -= 1
        if not self._expected:
            return None
        if self._turn_end is None:
            self._turn_end = asyncio.get_running_loop().call_soon(self._end_turn)
        return self._turn

    def send(self, answer: bytes, out: JoinedWrites, *, begun: int | None) -> None:
        """Send *answer* on *out*: later with others if its request was *begun* in this turn, otherwise immediately."""
        out.hold(answer)
        self._held.append(out)
        if begun != self._turn:
            self._send_held()

    def _end_turn(self) -> None:
        self._turn += 1
        self._turn_end = None
        self._send_held()

    def _send_held(self) -> None:
        held, self._held = self._held, []
        for out in held:
            try:
                out.flush()
            except Exception:
                # A fault of one connection must not cost the others their answers.
                log.exception("write_failed")
