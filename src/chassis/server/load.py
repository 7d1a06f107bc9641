"""
Measure the concurrency of an instance as Knative's queue-proxy does.

The figure is time-weighted: each interval counts with the concurrency during that interval. An average of samples
would miss the changes between them.
"""

import asyncio
import json
import socket
import time
from collections.abc import Callable

REPORT_PERIOD_S = 1.0


class Load:
    """
    Counts requests in flight and integrates them over time.

    Cost: one clock reading and a multiply-add per arrival and departure.
    Source: knative.dev/networking, pkg/http/stats/request.go (the same integral).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = self._last = clock()
        self._integral = 0.0
        self._arrivals = 0
        self.in_flight = 0

    def arrive(self) -> None:
        """Note that a request came in."""
        self._advance()
        self.in_flight += 1
        self._arrivals += 1

    def leave(self) -> None:
        """Note that a request was answered or abandoned."""
        self._advance()
        self.in_flight -= 1

    def report(self) -> tuple[float, int]:
        """Return the average concurrency and the arrivals since the last report, and start the next interval."""
        self._advance()
        elapsed = self._last - self._since
        average = self._integral / elapsed if elapsed > 0 else 0.0
        arrivals = self._arrivals
        self._since, self._integral, self._arrivals = self._last, 0.0, 0
        return average, arrivals

    def _advance(self) -> None:
        now = self._clock()
        self._integral += self.in_flight * (now - self._last)
        self._last = now


async def report_load(load: Load, *, path: str, pod: str) -> None:
    """
    Send the load of *pod* to the datagram socket at *path* once a second, until cancelled.

    A report that nothing at *path* receives is lost; the next one is still sent.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        while True:
            await asyncio.sleep(REPORT_PERIOD_S)
            average, arrivals = load.report()
            report = json.dumps({"pod": pod, "concurrency": round(average, 6), "requests": arrivals})
            try:
                sender.sendto(report.encode(), path)
            except OSError:
                continue
