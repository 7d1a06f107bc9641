"""
A closed loop of callers: each sends its next request when the last is answered, after a pause where told so.

Written on a bare asyncio protocol, because on a small machine the generator runs beside what it measures: it costs
some 30 us of CPU a request, an ordinary client ten times that. Every answer is checked.
"""

import argparse
import asyncio
import json
import random
import ssl
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import httptools
import uvloop

_WARM_UP_SHARE = 0.15

MakeRequest = Callable[[], bytes]
Check = Callable[[int, bytes], bool]


@dataclass(frozen=True)
class Outcome:
    """
    What a run showed: callers, requests per second, latency quantiles in milliseconds, errors.

    `first_error` is the first answer that was wrong: its status and how its body begins.
    """

    callers: int
    rps: float
    p50_ms: float
    p99_ms: float
    requests: int
    errors: int
    first_error: str = ""


@dataclass(frozen=True)
class Work:
    """What callers send, and what answer is right (given its status and body)."""

    request: MakeRequest
    is_right: Check


@dataclass(frozen=True)
class Door:
    """Where callers connect to, with TLS where there is a context for it."""

    host: str = "127.0.0.1"
    port: int = 80
    trust: ssl.SSLContext | None = None


class _Caller(asyncio.Protocol):
    def __init__(self, work: Work, note: Callable[[float, str], None], *, pause_s: float) -> None:
        self._work = work
        self._note = note
        self._pause_s = pause_s
        self.stopped = asyncio.get_running_loop().create_future()
        self.stopping = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def _send(self) -> None:
        if self.stopping:
            self._transport.close()
            return
        self._parser = httptools.HttpResponseParser(self)
        self._body = b""
        self._began = time.perf_counter()
        self._transport.write(self._work.request())

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        took_s = time.perf_counter() - self._began
        status, body = self._parser.get_status_code(), self._body
        self._note(took_s, "" if self._work.is_right(status, body) else f"{status} {body[:300]!r}")
        if self._pause_s:
            # Never all alike: callers that pause in step would arrive in step, and measure each other.
            asyncio.get_running_loop().call_later(self._pause_s * random.uniform(0.5, 1.5), self._send)
        else:
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.stopping:
            self._note(0.0, "connection lost")
        if not self.stopped.done():
            self.stopped.set_result(None)


class _ReadingCaller(_Caller):
    """Hands on every receipt. A class of its own, because a look at each header costs time."""

    def __init__(
        self, work: Work, note: Callable[[float, str], None], *, pause_s: float, read: Callable[[bytes], None]
    ) -> None:
        super().__init__(work, note, pause_s=pause_s)
        self._read = read

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"server-timing":
            self._read(value)


async def run_callers(
    door: int | Door,
    *,
    callers: int,
    seconds: float,
    users: int = 1000,
    work: Work | None = None,
    pause_s: float = 0.0,
    receipts: list[bytes] | None = None,
    warm_up_share: float = _WARM_UP_SHARE,
) -> Outcome:
    """
    Drive the server at *door*, or on that port of the loopback, for *seconds*; a share of them at first is not counted.

    Without other *work* callers ask recommend for random ones of *users*. The Server-Timing of every answer that counts
    goes to *receipts*.
    """
    work = work or ask_recommend(users)
    at = Door(port=door) if isinstance(door, int) else door
    latencies = array("d")
    wrong: list[str] = []
    counting = False

    def note(seconds: float, what_was_wrong: str) -> None:
        if counting:
            latencies.append(seconds)
            if what_was_wrong:
                wrong.append(what_was_wrong)

    def read(receipt: bytes) -> None:
        if counting and receipts is not None:
            receipts.append(receipt)

    def caller() -> _Caller:
        if receipts is None:
            return _Caller(work, note, pause_s=pause_s)
        return _ReadingCaller(work, note, pause_s=pause_s, read=read)

    loop = asyncio.get_running_loop()
    clients = [(await loop.create_connection(caller, at.host, at.port, ssl=at.trust))[1] for _ in range(callers)]
    await asyncio.sleep(seconds * warm_up_share)
    counting, began = True, time.perf_counter()
    await asyncio.sleep(seconds * (1 - warm_up_share))
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
        errors=len(wrong),
        first_error=wrong[0] if wrong else "",
    )


def post(body: bytes, *headers: bytes, host: bytes = b"127.0.0.1") -> bytes:
    """Return a POST of JSON as it goes over the wire."""
    lines = [
        b"POST / HTTP/1.1",
        b"host: " + host,
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        *headers,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def ask_recommend(users: int, *, seed: int = 0, host: bytes = b"127.0.0.1", headers: Sequence[bytes] = ()) -> Work:
    """Ask for the recommendations of random users; an answer is right when it has some, and is not degraded."""
    draw = random.Random(seed)
    return Work(
        lambda: post(b'{"user_id":"user_%d","top_k":5}' % draw.randint(1, users), *headers, host=host),
        lambda status, body: status == 200 and b'"recommendations":[{' in body and b'"degraded"' not in body,
    )


def ask_features(users: int, *, seed: int = 0) -> Work:
    """Ask for the features of random users; an answer is right when it knows the user."""
    draw = random.Random(seed)
    return Work(
        lambda: post(b'{"user_id":"user_%d"}' % draw.randint(1, users)),
        lambda status, body: status == 200 and b'"cold_start"' not in body,
    )


def send_interactions(users: int, items: int, *, seed: int = 0) -> Work:
    """Send an interaction event of its own each time; right is an empty 202."""
    draw = random.Random(seed)
    count = 0

    def request() -> bytes:
        nonlocal count
        count += 1
        data = (draw.randint(1, users), draw.randint(0, items - 1), count % 1000)
        body = b'{"user_id":"user_%d","kind":"view","item_id":"item_%d","time":"2026-02-01T00:00:00.%03dZ"}' % data
        return post(
            body,
            b"ce-specversion: 1.0",
            b"ce-type: dev.recsys.interaction.v1",
            b"ce-source: /load/%d" % seed,
            b"ce-id: %d-%d" % (time.monotonic_ns(), count),
        )

    return Work(request, lambda status, body: status == 202 and not body)


WORK: dict[str, Callable[[int], Work]] = {
    "recommend": ask_recommend,
    "features": ask_features,
    "interactions": lambda users: send_interactions(users, 1000),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run once and print the outcome as JSON: a process of its own, so that nothing else shares its time."""
    parser = argparse.ArgumentParser(prog="tools.bench.closed_loop", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--callers", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--work", choices=sorted(WORK), default="recommend")
    parser.add_argument("--pause-ms", type=float, default=0.0)
    options: Any = parser.parse_args(arguments)
    outcome = uvloop.run(
        run_callers(
            options.port,
            callers=options.callers,
            seconds=options.seconds,
            work=WORK[options.work](options.users),
            pause_s=options.pause_ms / 1000,
        )
    )
    print(json.dumps(asdict(outcome)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
