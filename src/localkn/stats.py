"""What instances report of themselves, once a second, as Knative's queue-proxy does."""

import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path

_FRESH_S = 3.0


@dataclass(frozen=True, slots=True)
class Report:
    """Time-weighted average of an instance's concurrency over a second, and the requests that arrived in it."""

    concurrency: float
    requests: float
    at: float


class Reports(asyncio.DatagramProtocol):
    """The newest report of each instance. One datagram is `{"pod": NAME, "concurrency": N, "requests": N}`."""

    def __init__(self) -> None:
        self._newest: dict[str, Report] = {}

    async def listen(self, path: Path) -> None:
        """Receive on the Unix datagram socket *path* from now on."""
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, local_addr=str(path), family=1)

    def datagram_received(self, data: bytes, addr: object) -> None:
        """Keep a report; what is none is dropped, an instance must not be able to disturb the others."""
        try:
            report = json.loads(data)
            pod, concurrency, requests = str(report["pod"]), float(report["concurrency"]), float(report["requests"])
        except (ValueError, KeyError, TypeError):
            return
        self._newest[pod] = Report(concurrency, requests, time.monotonic())

    def newest(self, pod: str) -> Report | None:
        """The newest report of an instance, unless it has fallen silent."""
        report = self._newest.get(pod)
        return report if report is not None and time.monotonic() - report.at < _FRESH_S else None

    def forget(self, pod: str) -> None:
        """Drop what an instance reported."""
        self._newest.pop(pod, None)
