"""
A closed loop of callers: each sends its next request when the last is answered.

Written on a bare asyncio protocol, because on a small machine the generator runs beside what it measures: it costs
some 30 us of CPU a request, an ordinary client ten times that. Every answer is checked.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import httptools
import uvloop

_WARM_UP_SHARE = 0.15


@dataclass(frozen=True)
class Outcome:
    """What a run showed: callers, requests per second, latency quantiles in milliseconds, errors."""

    callers: int
    rps: float
    p50_ms: float
    p99_ms: float
    requests: int
    errors: int


class _Caller(asyncio.Protocol):
    def __init__(self, next_request: Callable[[], bytes], note: Callable[[float, bool], None]) -> None:
        self._next_request = next_request
        self._note = note
        self.stopped = asyncio.get_running_loop().create_future()
        self.stopping = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def _send(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._body = b""
        self._began = time.perf_counter()
        self._transport.write(self._next_request())

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        good = self._parser.get_status_code() == 200 and b'"recommendations":[{' in self._body
        self._note(time.perf_counter() - self._began, good and b'"degraded"' not in self._body)
        if self.stopping:
            self._transport.close()
        else:
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.stopping:
            self._note(0.0, False)
        if not self.stopped.done():
            self.stopped.set_result(None)


async def run_callers(port: int, *, callers: int, seconds: float, users: int, seed: int = 0) -> Outcome:
    """Drive the server on *port* of the loopback for *seconds*; the first part warms up and is not counted."""
    draw = random.Random(seed)
    latencies, errors = array("d"), 0
    counting = False

    def next_request() -> bytes:
        body = b'{"user_id":"user_%d","top_k":5}' % draw.randint(1, users)
        head = b"POST / HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        return head % len(body) + body

    def note(seconds: float, good: bool) -> None:  # noqa: FBT001 - called a thousand times a second
        nonlocal errors
        if counting:
            latencies.append(seconds)
            errors += not good

    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(lambda: _Caller(next_request, note), "127.0.0.1", port))[1]
        for _ in range(callers)
    ]
    await asyncio.sleep(seconds * _WARM_UP_SHARE)
    counting, began = True, time.perf_counter()
    await asyncio.sleep(seconds * (1 - _WARM_UP_SHARE))
    counting, elapsed = False, time.perf_counter() - began
    for client in clients:
        client.stopping = True
    await asyncio.gather(*(client.stopped for client in clients))
    ordered = sorted(latencies)
    return Outcome(
        callers,
        rps=len(ordered) / elapsed,
        p50_ms=ordered[len(ordered) // 2] * 1000,
        p99_ms=ordered[int(len(ordered) * 0.99)] * 1000,
        requests=len(ordered),
        errors=errors,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run once and print the outcome as JSON: a process of its own, so that nothing else shares its time."""
    parser = argparse.ArgumentParser(prog="loadtests.closed_loop", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--callers", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--users", type=int, default=1000)
    options: Any = parser.parse_args(arguments)
    outcome = uvloop.run(
        run_callers(options.port, callers=options.callers, seconds=options.seconds, users=options.users)
    )
    print(json.dumps(asdict(outcome)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
