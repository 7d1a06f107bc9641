"""What the platform tells an ingress, and what it learns from it."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from localkn.services import Target
from localkn.stats import Report, Seen


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An instance that takes requests, or one that finishes those it has."""

    port: int
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Cluster:
    """A revision as the ingress sees it."""

    name: str
    endpoints: Sequence[Endpoint] = ()
    container_concurrency: int = 0
    queue_limit: int = 0
    http2: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """A Service: its host name, the port it has to itself, and where its requests go."""

    host: str
    port: int
    targets: Sequence[Target] = ()
    timeout_s: int = 300
    idle_timeout_s: int = 0
    public: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """All an ingress has to know."""

    clusters: Sequence[Cluster] = ()
    routes: Sequence[Route] = ()


class Ingress(Protocol):
    """Leads requests to instances."""

    async def start(self, picture: Picture) -> None:
        """Begin to serve."""
        ...

    def publish(self, picture: Picture) -> None:
        """Take over a changed picture, in a moment."""
        ...

    def seen(self, cluster: str) -> Mapping[int, Seen]:
        """Endpoints of a revision, by port, as last reported."""
        ...

    def load(self, cluster: str, port: int) -> Report:
        """Concurrency and arrivals at an endpoint since last asked."""
        ...

    async def drained(self, cluster: str, port: int) -> None:
        """Return once an endpoint that was published as draining has no request left."""
        ...

    async def latencies(self) -> dict[str, dict[str, float]]:
        """Quantiles of the time each revision took to answer, in milliseconds."""
        ...

    async def stop(self) -> None:
        """End."""
        ...


class DirectIngress:
    """No ingress: every Service is one instance, which listens on the port of its route."""

    def __init__(self) -> None:
        self._picture = Picture()

    async def start(self, picture: Picture) -> None:
        """Nothing has to run."""
        self._picture = picture

    def publish(self, picture: Picture) -> None:
        """Believe it at once."""
        self._picture = picture

    def seen(self, cluster: str) -> Mapping[int, Seen]:
        """Say what was published."""
        return {
            endpoint.port: Seen(healthy=not endpoint.draining)
            for published in self._picture.clusters
            if published.name == cluster
            for endpoint in published.endpoints
        }

    def load(self, cluster: str, port: int) -> Report:
        """Say nothing: no request passes here."""
        return Report()

    async def latencies(self) -> dict[str, dict[str, float]]:
        """Say nothing: no answer passes here."""
        return {}

    async def drained(self, cluster: str, port: int) -> None:
        """Return at once: nobody knows of the requests of an instance that is called directly."""
        await asyncio.sleep(0)

    async def stop(self) -> None:
        """Nothing runs."""
