"""The port of an ingress: the configuration that the platform publishes, and the load that it reads back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from localkn.services import TrafficTarget
from localkn.stats import LoadReport, Seen


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An instance that takes requests, or one that only finishes the requests it has."""

    port: int
    draining: bool = False


@dataclass(frozen=True, slots=True)
class IngressCluster:
    """A revision as the ingress sees it."""

    name: str
    endpoints: Sequence[Endpoint] = ()
    container_concurrency: int = 0
    queue_limit: int = 0
    http2: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """A Service: its host name, its separate port, and the destinations of its requests."""

    host: str
    port: int
    targets: Sequence[TrafficTarget] = ()
    timeout_s: int = 300
    idle_timeout_s: int = 0
    public: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """The whole configuration of an ingress."""

    clusters: Sequence[IngressCluster] = ()
    routes: Sequence[Route] = ()


class Ingress:
    """No ingress: the one instance of each Service listens on the port of its route. `EnvoyIngress` is a real one."""

    def __init__(self) -> None:
        self._picture = Picture()

    async def start(self) -> None:
        """Start to serve the published configuration."""

    async def observe(self) -> None:
        """Keep endpoints and load up to date until cancelled."""

    async def stop(self) -> None:
        """Stop serving."""

    def publish(self, picture: Picture) -> None:
        """Apply a changed configuration, asynchronously."""
        self._picture = picture

    def seen(self, cluster: str) -> Mapping[int, Seen]:
        """Return the endpoints of a revision, by port, as the ingress last reported them."""
        endpoints = [
            e for published in self._picture.clusters if published.name == cluster for e in published.endpoints
        ]
        return {endpoint.port: Seen(healthy=not endpoint.draining) for endpoint in endpoints}

    def load(self, cluster: str, port: int) -> LoadReport:
        """Return concurrency and arrivals at an endpoint since the last call."""
        return LoadReport()

    async def drained(self, cluster: str, port: int) -> None:
        """Return once an endpoint published as draining has no request in flight."""

    async def latencies(self) -> dict[str, dict[str, float]]:
        """Return p50 and p99 of each revision's response time, in milliseconds."""
        return {}
