"""
Envoy's configuration as files: a bootstrap, and the files that Envoy watches (CDS, EDS, RDS, SDS).

Pure: a picture in, names and contents out. The skeletons are in `envoy.yaml`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from kubeyaml.documents import read_trusted
from localkn.ingress import IngressCluster, Picture, Route
from localkn.services import TrafficTarget

_SKELETONS: Final = read_trusted(Path(__file__).with_name("envoy.yaml"))
_PUBLIC: Final = "public"
_UNLIMITED: Final = 1_000_000
_IDLE_MARGIN_S: Final = 5


LOOPBACK: Final = ("127.0.0.1", "localhost", "*.localhost", "[::1]")
"""Hosts that can only mean this machine. A name that an attacker's DNS leads here is none of them."""

_REPLIES: Final[Sequence[tuple[int, str, str]]] = (
    (400, "Bad Request", "%LOCAL_REPLY_BODY%"),
    (403, "Forbidden", "the request was refused before it reached a Service"),
    (404, "Not Found", "a request names a path, not *"),
    (408, "Request Timeout", "the request did not arrive in time"),
    (413, "Content Too Large", "%LOCAL_REPLY_BODY%"),
    (
        421,
        "Misdirected Request",
        "%LOCAL_REPLY_BODY%; send the name that `up` prints, or allow this one with `up --host`",
    ),
    (426, "Upgrade Required", "send the request as HTTP/1.1 or HTTP/2"),
    (431, "Request Header Fields Too Large", "at most 100 headers of 60 KiB together are taken"),
    (501, "Not Implemented", "send the body with Content-Length, or with Transfer-Encoding: chunked alone"),
    (502, "Bad Gateway", "%LOCAL_REPLY_BODY%"),
    (503, "Service Unavailable", "%LOCAL_REPLY_BODY%"),
    (504, "Gateway Timeout", "%LOCAL_REPLY_BODY%"),
)
"""Status, title and detail of the answers that Envoy gives itself."""

_RETRIABLE: Final = {503}


def bootstrap(
    directory: Path, *, admin: Path, port: int, routes: Sequence[Route], tls: bool, connections: int
) -> dict[str, Any]:
    """
    Make the configuration that Envoy starts with.

    Args:
        directory: Holds the files of `resources`.
        admin: Unix socket of the admin interface.
        port: Serves every Service by host name, the public one also by loopback names.
        routes: The Services; each also has its own listener.
        tls: Whether *port* speaks TLS.
        connections: Callers' connections that Envoy keeps at a time; it closes those beyond.
    """
    listeners = [_listener(_PUBLIC, directory, port=port)]
    if tls:
        listeners[0]["filter_chains"][0]["transport_socket"] = _filled("tls", sds=_source(directory / "sds.json"))
    listeners += [_listener(route.host, directory, port=route.port) for route in routes]
    return _filled(
        "bootstrap", admin=str(admin), cds=_source(directory / "cds.json"), listeners=listeners, connections=connections
    )


def resources(
    directory: Path, picture: Picture, *, certificate: tuple[Path, Path] | None, hosts: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """
    Return the contents of each watched file, in the order in which they have to be written.

    Args:
        directory: Holds the files.
        picture: The configuration of the ingress.
        certificate: Chain and key of the public port.
        hosts: Further hosts that mean the public Service.
    """
    found = {f"eds-{cluster.name}.json": [_endpoints(cluster)] for cluster in picture.clusters}
    found["cds.json"] = [_cluster(cluster, directory) for cluster in picture.clusters]
    for route in picture.routes:
        own = [_host(route.host, [*_names(route.host), *LOOPBACK], route, route.targets)]
        found[f"rds-{route.host}.json"] = [_filled("routes", name=route.host, hosts=[*own, _MISDIRECTED])]
    public = [host for route in picture.routes for host in _named_hosts(route, hosts)]
    found[f"rds-{_PUBLIC}.json"] = [_filled("routes", name=_PUBLIC, hosts=[*public, _MISDIRECTED])]
    if certificate is not None:
        chain, key = certificate
        found["sds.json"] = [_filled("secret", chain=str(chain), key=str(key), directory=str(chain.parent))]
    return {name: {"resources": content} for name, content in found.items()}


def _listener(name: str, directory: Path, *, port: int) -> dict[str, Any]:
    replies = [_reply(*reply, public=name == _PUBLIC) for reply in _REPLIES]
    return _filled(
        "listener",
        name=name,
        address=_address(port),
        rds=_source(directory / f"rds-{name}.json"),
        replies=replies,
        problem=_SKELETONS["problem"],
    )


def _reply(status: int, title: str, detail: str, *, public: bool) -> dict[str, Any]:
    # Only outside callers are asked to wait. A function that calls another one retries on another instance within
    # milliseconds, and it would obey the header.
    headers = [_filled("header", name="Retry-After", value="1")] if public and status in _RETRIABLE else []
    return _filled("reply", status=status, problem=_filled("titled", title=title, detail=detail), headers=headers)


def _cluster(cluster: IngressCluster, directory: Path) -> dict[str, Any]:
    return _filled(
        "cluster",
        name=cluster.name,
        eds=_source(directory / f"eds-{cluster.name}.json"),
        most=cluster.container_concurrency or _UNLIMITED,
        queue=cluster.queue_limit or _UNLIMITED,
        protocol="http2_protocol_options" if cluster.http2 else "http_protocol_options",
    )


def _endpoints(cluster: IngressCluster) -> dict[str, Any]:
    endpoints = [
        _filled("endpoint", health="DRAINING" if endpoint.draining else "HEALTHY", address=_address(endpoint.port))
        for endpoint in cluster.endpoints
    ]
    return _filled("endpoints", name=cluster.name, endpoints=endpoints)


def _named_hosts(route: Route, allowed: Sequence[str]) -> list[dict[str, Any]]:
    """Serve a Service under its names, under those of its tags, and the public one under loopback names too."""
    further = [*LOOPBACK, *allowed] if route.public else []
    hosts = [_host(route.host, [*_names(route.host), *further], route, route.targets)]
    for target in route.targets:
        if target.tag:
            name = f"{target.tag}-{route.host}"
            hosts.append(_host(name, _names(name), route, [TrafficTarget(target.revision, percent=100)]))
    return hosts


def _names(host: str) -> list[str]:
    """Return the names of a Service inside a cluster, and its name on this machine."""
    return [host, f"{host}.svc", f"{host}.svc.cluster.local", f"{host}.localhost"]


def _host(name: str, domains: Sequence[str], route: Route, targets: Sequence[TrafficTarget]) -> dict[str, Any]:
    clusters = [{"name": target.revision, "weight": target.percent} for target in targets if target.percent]
    if not clusters:
        return _filled("unready_host", name=name, domains=domains)
    timeout = f"{route.timeout_s}s"
    # Without idleTimeoutSeconds a silent stream ends when no answer could come any more.
    idle = f"{route.idle_timeout_s or route.timeout_s + _IDLE_MARGIN_S}s"
    return _filled("host", name=name, domains=domains, clusters=clusters, timeout=timeout, idle_timeout=idle)


_MISDIRECTED: Final = _SKELETONS["misdirected_host"]


def _source(path: Path) -> dict[str, Any]:
    return _filled("source", path=str(path))


def _address(port: int) -> dict[str, Any]:
    return _filled("address", port=port)


def _filled(skeleton: str, **values: Any) -> dict[str, Any]:
    def fill(node: Any) -> Any:
        if isinstance(node, dict):
            return {fill(key): fill(value) for key, value in node.items()}
        if isinstance(node, list):
            return [fill(item) for item in node]
        return values[node[1:]] if isinstance(node, str) and node.startswith("$") else node

    filled: dict[str, Any] = fill(_SKELETONS[skeleton])
    return filled
