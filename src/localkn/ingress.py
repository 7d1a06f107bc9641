"""What the platform tells an ingress, and what it learns from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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


class Ingress:
    """None: every Service is one instance that listens on the port of its route. `EnvoyIngress` is a real one."""

    def __init__(self) -> None:
        self._picture = Picture()

    async def start(self) -> None:
        """Begin to serve what was published."""

    async def observe(self) -> None:
        """Keep what is told here up to date, until cancelled."""

    async def stop(self) -> None:
        """End."""

    def publish(self, picture: Picture) -> None:
        """Take over a changed picture, in a moment."""
        self._picture = picture

    def seen(self, cluster: str) -> Mapping[int, Seen]:
        """Endpoints of a revision, by port, as the ingress last reported them."""
        endpoints = [
            e for published in self._picture.clusters if published.name == cluster for e in published.endpoints
        ]
        return {endpoint.port: Seen(healthy=not endpoint.draining) for endpoint in endpoints}

    def load(self, cluster: str, port: int) -> Report:
        """Concurrency and arrivals at an endpoint since last asked."""
        return Report()

    async def drained(self, cluster: str, port: int) -> None:
        """Return once an endpoint that was published as draining has no request left."""

    async def latencies(self) -> dict[str, dict[str, float]]:
        """p50 and p99 of the time each revision took to answer, in milliseconds."""
        return {}
