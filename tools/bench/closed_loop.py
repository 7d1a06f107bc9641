"""
A closed loop of callers: each caller sends its next request after the last answer and an optional pause.

The generator uses a plain asyncio protocol, because it often shares a small machine with the measured server. It costs
about 30 us of CPU per request; a usual HTTP client costs ten times as much. Every answer is checked.
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
from urllib.parse import urlsplit

import httptools
import uvloop

from loadtests.population import known_users

WARM_UP_SHARE = 0.15

MakeRequest = Callable[[], bytes]
Check = Callable[[int, bytes], bool]


@dataclass(frozen=True)
class LoopOutcome:
    """
    The result of a run: callers, requests per second, latency quantiles in milliseconds, errors.

    `first_error` describes the first wrong answer: its status and the beginning of its body.
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
    """Creates requests, and decides by status and body whether an answer is correct."""

    request: MakeRequest
    is_correct: Check


@dataclass(frozen=True)
class ServerAddress:
    """
    The address that callers connect to.

    Attributes:
        host: Name or IP address.
        port: Port.
        trust: Verifies the certificate; None for no TLS.
        name: Name that the certificate is for; None for *host*.
    """

    host: str = "127.0.0.1"
    port: int = 80
    trust: ssl.SSLContext | None = None
    name: str | None = None

    @classmethod
    def of(cls, url: str, *, trust: ssl.SSLContext, name: str | None = None) -> "ServerAddress":
        """Return the address of *url*; with https, *trust* verifies the certificate, which is for *name*."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme == "https":
            return cls(host, parts.port or 443, trust, name)
        return cls(host, parts.port or 80)


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
        self._note(took_s, "" if self._work.is_correct(status, body) else f"{status} {body[:300]!r}")
        if self._pause_s:
            # Random pauses: with equal ones, all callers would send at the same time and queue behind each other.
            asyncio.get_running_loop().call_later(self._pause_s * random.uniform(0.5, 1.5), self._send)
        else:
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.stopping:
            self._note(0.0, "connection lost")
        if not self.stopped.done():
            self.stopped.set_result(None)


class _ReadingCaller(_Caller):
    """Passes on the receipt of every answer. A separate class, because handling headers costs time."""

    def __init__(
        self, work: Work, note: Callable[[float, str], None], *, pause_s: float, read: Callable[[bytes], None]
    ) -> None:
        super().__init__(work, note, pause_s=pause_s)
        self._read = read

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"server-timing":
            self._read(value)


async def run_callers(
    address: int | ServerAddress,
    *,
    callers: int,
    seconds: float,
    users: int = 1000,
    work: Work | None = None,
    pause_s: float = 0.0,
    receipts: list[bytes] | None = None,
    warm_up_share: float = WARM_UP_SHARE,
    may_end: Callable[[], bool] = lambda: True,
) -> LoopOutcome:
    """
    Drive the server at *address* for *seconds*. An integer is a port of the loopback interface.

    The first part of the run, *warm_up_share*, is not counted. The run lasts longer than *seconds* until an answer is
    counted and *may_end* returns true. Without *work*, callers request recommendations for random users out of *users*.
    The Server-Timing header of every counted answer is appended to *receipts*.

    Raises:
        OSError: the server cannot be reached, or closes every connection before an answer is counted.
    """
    work = work or request_recommendations(known_users(None, most=users))
    at = ServerAddress(port=address) if isinstance(address, int) else address
    tally = _Tally(receipts)

    def make_caller() -> _Caller:
        if receipts is None:
            return _Caller(work, tally.note, pause_s=pause_s)
        return _ReadingCaller(work, tally.note, pause_s=pause_s, read=tally.read)

    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(make_caller, at.host, at.port, ssl=at.trust, server_hostname=at.name))[1]
        for _ in range(callers)
    ]
    await asyncio.sleep(seconds * warm_up_share)
    tally.counting, began = True, time.perf_counter()
    await asyncio.sleep(seconds * (1 - warm_up_share))
    while not (tally.has_counted and may_end()):
        if not tally.has_counted and all(client.stopped.done() for client in clients):
            raise ConnectionError(f"{at.host}:{at.port} closed every connection before an answer was counted")
        await asyncio.sleep(0.01)
    tally.counting, elapsed_s = False, time.perf_counter() - began
    for client in clients:
        client.stopping = True
    await asyncio.gather(*(client.stopped for client in clients))
    return tally.outcome(callers, elapsed_s)


class _Tally:
    """Counts latencies and errors while `counting` is set."""

    def __init__(self, receipts: list[bytes] | None) -> None:
        self.counting = False
        self._receipts = receipts
        self._latencies = array("d")
        self._errors: list[str] = []

    @property
    def has_counted(self) -> bool:
        return bool(self._latencies)

    def note(self, seconds: float, error: str) -> None:
        if self.counting:
            self._latencies.append(seconds)
            if error:
                self._errors.append(error)

    def read(self, receipt: bytes) -> None:
        if self.counting and self._receipts is not None:
            self._receipts.append(receipt)

    def outcome(self, callers: int, elapsed_s: float) -> LoopOutcome:
        ordered = sorted(self._latencies)
        return LoopOutcome(
            callers,
            rps=len(ordered) / elapsed_s,
            p50_ms=ordered[len(ordered) // 2] * 1000,
            p99_ms=ordered[int(len(ordered) * 0.99)] * 1000,
            requests=len(ordered),
            errors=len(self._errors),
            first_error=self._errors[0] if self._errors else "",
        )


def post(body: bytes, *headers: bytes, host: bytes = b"127.0.0.1") -> bytes:
    """Return the bytes of a POST request with a JSON body."""
    lines = [
        b"POST / HTTP/1.1",
        b"host: " + host,
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        *headers,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def request_recommendations(users: Sequence[str], *, host: bytes = b"127.0.0.1", headers: Sequence[bytes] = ()) -> Work:
    """Request recommendations for random *users*. An answer is correct if it has items and is not degraded."""
    draw = random.Random(0)
    bodies = [b'{"user_id":%s,"top_k":5}' % json.dumps(user).encode() for user in users]
    return Work(
        lambda: post(draw.choice(bodies), *headers, host=host),
        lambda status, body: status == 200 and b'"recommendations":[{' in body and b'"degraded"' not in body,
    )


def request_features(users: int) -> Work:
    """Request features of random users. An answer is correct if the user is known."""
    draw = random.Random(0)
    return Work(
        lambda: post(b'{"user_id":"user_%d"}' % draw.randint(1, users)),
        lambda status, body: status == 200 and b'"cold_start"' not in body,
    )


def send_interactions(users: int) -> Work:
    """Send interaction events, each with its own id. The correct answer is an empty 202."""
    draw = random.Random(0)
    count = 0

    def request() -> bytes:
        nonlocal count
        count += 1
        data = (draw.randint(1, users), draw.randrange(1000), count % 1000)
        body = b'{"user_id":"user_%d","kind":"view","item_id":"item_%d","time":"2026-02-01T00:00:00.%03dZ"}' % data
        return post(
            body,
            b"ce-specversion: 1.0",
            b"ce-type: dev.recsys.interaction.v1",
            b"ce-source: /load/0",
            b"ce-id: %d-%d" % (time.monotonic_ns(), count),
        )

    return Work(request, lambda status, body: status == 202 and not body)


WORK: dict[str, Callable[[int], Work]] = {
    "recommend": lambda users: request_recommendations(known_users(None, most=users)),
    "features": request_features,
    "interactions": send_interactions,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run once and print the outcome as JSON. As a separate process, the loop does not compete with other work."""
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
