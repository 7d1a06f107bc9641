"""Looking at a platform: its status, and what each of its instances exposes."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

PodLabels = Mapping[str, str]
Scrape = Callable[[int], Awaitable[str]]

_SCRAPE_S = 1.0


@dataclass(frozen=True)
class Snapshot:
    """
    A platform at one moment.

    Attributes:
        at: When, in seconds on the monotonic clock.
        status: What `localkn status --json` prints.
        scraped: What each instance exposed, by its name; one that could not be read is missing.
    """

    at: float
    status: Mapping[str, Any]
    scraped: Mapping[str, Sequence[Metric]] = field(default_factory=dict)

    @property
    def services(self) -> Mapping[str, Any]:
        """The Services of the manifests and those the platform brings along, by name."""
        return {**self.status["services"], **self.status.get("built_in", {})}

    def instances(self) -> Iterator[tuple[PodLabels, Mapping[str, Any]]]:
        """Yield every instance with the labels that a pod would be scraped with."""
        for name, service in self.services.items():
            for revision in service["revisions"]:
                for instance in revision["instances"]:
                    labels = {"namespace": service["namespace"], "service": name, "revision": revision["name"]}
                    yield {**labels, "pod": instance["name"]}, instance


class Watcher:
    """
    Looks at one platform.

    Args:
        ask: Returns its status; may block, and raises LocalknError where none runs.
        scrape: Returns what is exposed on a loopback port; raises httpx.HTTPError where nothing is.
    """

    def __init__(self, ask: Callable[[], dict[str, Any]], scrape: Scrape) -> None:
        self._ask, self._scrape = ask, scrape

    async def look(self) -> Snapshot:
        """
        Look now, at all instances at once.

        Raises:
            LocalknError: No platform runs.
        """
        bare = Snapshot(time.monotonic(), await asyncio.to_thread(self._ask))
        ports = {labels["pod"]: each["metrics_port"] for labels, each in bare.instances() if each["metrics_port"]}
        read = await asyncio.gather(*(self._read(port) for port in ports.values()))
        scraped = {pod: families for pod, families in zip(ports, read, strict=True) if families is not None}
        return Snapshot(bare.at, bare.status, scraped)

    async def _read(self, port: int) -> list[Metric] | None:
        try:
            return list(text_string_to_metric_families(await self._scrape(port)))
        except (httpx.HTTPError, ValueError):
            return None


def scraper(client: httpx.AsyncClient) -> Scrape:
    """Return what reads instances through *client*."""

    async def scrape(port: int) -> str:
        answer = await client.get(f"http://127.0.0.1:{port}/metrics", timeout=_SCRAPE_S)
        return answer.raise_for_status().text

    return scrape
