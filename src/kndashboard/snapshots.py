"""Take snapshots of a platform: its status, and the metrics of its instances."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from kndashboard.samples import SampleReader, Samples

PodLabels = Mapping[str, str]
Scrape = Callable[[int], Awaitable[str]]


@dataclass(frozen=True)
class Exposed:
    """
    The metrics of one instance.

    Attributes:
        text: The exposition.
        samples: Its samples that the page shows.
    """

    text: str
    samples: Samples


@dataclass(frozen=True)
class Snapshot:
    """
    A platform at one moment.

    Attributes:
        at: Time of the snapshot, seconds on the monotonic clock.
        status: The output of `localkn status --json`.
        scraped: The metrics by instance, without instances whose metrics could not be read.
    """

    at: float
    status: Mapping[str, Any]
    scraped: Mapping[str, Exposed] = field(default_factory=dict)

    @property
    def services(self) -> Mapping[str, Any]:
        """The Services of the manifests and of the platform, by name."""
        return {**self.status["services"], **self.status.get("built_in", {})}

    def instances(self) -> Iterator[tuple[PodLabels, Mapping[str, Any]]]:
        """Yield each instance with the labels that Prometheus would set for its pod."""
        for name, service in self.services.items():
            for revision in service["revisions"]:
                for instance in revision["instances"]:
                    labels = {"namespace": service["namespace"], "service": name, "revision": revision["name"]}
                    yield {**labels, "pod": instance["name"]}, instance


class Watcher:
    """
    Takes snapshots of one platform.

    Args:
        ask: Returns the status; raises LocalknError if no platform runs.
        scrape: Returns the exposition on a loopback port; raises httpx.HTTPError if the port does not answer.
        clock: Seconds on a monotonic clock.
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[dict[str, Any]]],
        scrape: Scrape,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask, self._scrape, self.clock = ask, scrape, clock
        self._readers: dict[str, SampleReader] = {}

    async def snapshot(self) -> Snapshot:
        """
        Take a snapshot, and read all instances concurrently.

        Raises:
            LocalknError: no platform runs.
        """
        bare = Snapshot(self.clock(), await self._ask())
        ports = {labels["pod"]: each["metrics_port"] for labels, each in bare.instances() if each["metrics_port"]}
        read = await asyncio.gather(*(self._read(pod, port) for pod, port in ports.items()))
        scraped = {pod: exposed for pod, exposed in zip(ports, read, strict=True) if exposed is not None}
        self._readers = {pod: reader for pod, reader in self._readers.items() if pod in ports}
        return Snapshot(bare.at, bare.status, scraped)

    async def _read(self, pod: str, port: int) -> Exposed | None:
        try:
            text = await self._scrape(port)
            return Exposed(text, self._readers.setdefault(pod, SampleReader()).read(text))
        except (httpx.HTTPError, ValueError):
            return None
