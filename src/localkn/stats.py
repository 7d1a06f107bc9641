"""
The load of each instance: its own report once a second, as Knative's queue-proxy sends it, or samples of the
ingress's counters for an instance that does not report.
"""

import asyncio
import json
import math
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_FRESH_S = 3.0
_MOST = 1e6
_MOST_PODS = 1000


@dataclass(frozen=True, slots=True)
class LoadReport:
    """Time-weighted average of an instance's concurrency over a second, and the requests that arrived in it."""

    concurrency: float = 0.0
    requests: float = 0.0
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Seen:
    """The ingress's figures of an endpoint: whether it gets requests, requests in flight, requests so far."""

    healthy: bool
    active: int = 0
    total: int = 0


class Reports(asyncio.DatagramProtocol):
    """The newest report of each instance. One datagram is `{"pod": NAME, "concurrency": N, "requests": N}`."""

    def __init__(self) -> None:
        self._newest: dict[str, LoadReport] = {}

    async def listen(self, path: Path) -> None:
        """Start to receive on the Unix datagram socket *path*."""
        await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: self, local_addr=str(path), family=socket.AF_UNIX
        )

    def datagram_received(self, data: bytes, addr: object) -> None:
        """Keep a report. Drop anything else: an instance must not be able to disturb the others."""
        try:
            report = json.loads(data)
            pod, concurrency, requests = str(report["pod"]), float(report["concurrency"]), float(report["requests"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return
        is_plausible = all(math.isfinite(number) and 0 <= number <= _MOST for number in (concurrency, requests))
        if is_plausible and (pod in self._newest or len(self._newest) < _MOST_PODS):
            self._newest[pod] = LoadReport(concurrency, requests, time.monotonic())

    def newest(self, pod: str) -> LoadReport | None:
        """Return the newest report of an instance; None if that is old."""
        report = self._newest.get(pod)
        return report if report is not None and time.monotonic() - report.at < _FRESH_S else None

    def forget(self, pod: str) -> None:
        """Drop the reports of an instance."""
        self._newest.pop(pod, None)


class Sampler:
    """Averages of counters that are sampled at irregular times."""

    def __init__(self) -> None:
        self._seen: Mapping[str, Mapping[int, Seen]] = {}
        self._seen_at = 0.0
        self._area: dict[tuple[str, int], float] = {}
        self._taken: dict[tuple[str, int], tuple[float, int]] = {}
        self.busy = False

    def observe(self, seen: Mapping[str, Mapping[int, Seen]], *, now: float) -> None:
        """Take a sample of every endpoint; between two samples the mean of both holds."""
        elapsed, area, self.busy = now - self._seen_at, {}, False
        for cluster, hosts in seen.items():
            for port, host in hosts.items():
                before = self._seen.get(cluster, {}).get(port, Seen(healthy=False))
                mean = (before.active + host.active) / 2
                area[cluster, port] = self._area.get((cluster, port), 0.0) + mean * elapsed
                self.busy = self.busy or host.active > 0 or host.total > before.total
        self._seen, self._seen_at, self._area = seen, now, area
        self._taken = {key: taken for key, taken in self._taken.items() if key in area}

    def take(self, cluster: str, port: int, *, now: float) -> LoadReport:
        """Average concurrency of an endpoint and requests it got, both over the samples since the last call for it."""
        key = cluster, port
        total = self._seen.get(cluster, {}).get(port, Seen(healthy=False)).total
        since, before = self._taken.get(key, (self._seen_at, total))
        area, sampled_s = self._area.pop(key, 0.0), self._seen_at - since
        self._taken[key] = self._seen_at, total
        return LoadReport(area / sampled_s if sampled_s > 0 else 0.0, max(0, total - before), now)
