"""
Envoy's configuration as files: a bootstrap, and what Envoy watches and reloads (CDS, EDS, RDS, SDS).

Pure: a picture in, names and contents out. The skeletons are in `envoy.yaml`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from localkn.ingress import Cluster, Picture, Route
from localkn.services import Target

_SKELETONS: Final = yaml.safe_load(Path(__file__).with_name("envoy.yaml").read_text("utf-8"))
_PUBLIC: Final = "public"
_UNLIMITED: Final = 1_000_000


def bootstrap(directory: Path, *, admin: Path, port: int, routes: Sequence[Route], tls: bool) -> dict[str, Any]:
    """
    What Envoy is started with.

    Args:
        directory: Where the files of `resources` are.
        admin: Unix socket of the admin interface.
        port: Where every Service is found by host name, the public one by any.
        routes: The Services; each has a listener of its own besides.
        tls: Whether *port* speaks TLS.
    """
    listeners = [_listener(_PUBLIC, directory, port=port)]
    if tls:
        listeners[0]["filter_chains"][0]["transport_socket"] = _filled("tls", sds=_source(directory / "sds.json"))
    listeners += [_listener(route.host, directory, port=route.port) for route in routes]
    return _filled("bootstrap", admin=str(admin), cds=_source(directory / "cds.json"), listeners=listeners)


def resources(directory: Path, picture: Picture, *, certificate: tuple[Path, Path] | None) -> dict[str, dict[str, Any]]:
    """Contents of each watched file, in the order in which they have to be written."""
    found = {f"eds-{cluster.name}.json": [_endpoints(cluster)] for cluster in picture.clusters}
    found["cds.json"] = [_cluster(cluster, directory) for cluster in picture.clusters]
    for route in picture.routes:
        hosts = [_host(route.host, ["*"], route, route.targets)]
        found[f"rds-{route.host}.json"] = [_filled("routes", name=route.host, hosts=hosts)]
    hosts = [host for route in picture.routes for host in _named_hosts(route)]
    found[f"rds-{_PUBLIC}.json"] = [_filled("routes", name=_PUBLIC, hosts=hosts)]
    if certificate is not None:
        chain, key = certificate
        found["sds.json"] = [_filled("secret", chain=str(chain), key=str(key), directory=str(chain.parent))]
    return {name: {"resources": content} for name, content in found.items()}


def _listener(name: str, directory: Path, *, port: int) -> dict[str, Any]:
    return _filled("listener", name=name, address=_address(port), rds=_source(directory / f"rds-{name}.json"))


def _cluster(cluster: Cluster, directory: Path) -> dict[str, Any]:
    return _filled(
        "cluster",
        name=cluster.name,
        eds=_source(directory / f"eds-{cluster.name}.json"),
        most=cluster.container_concurrency or _UNLIMITED,
        queue=cluster.queue_limit or _UNLIMITED,
        protocol="http2_protocol_options" if cluster.http2 else "http_protocol_options",
    )


def _endpoints(cluster: Cluster) -> dict[str, Any]:
    endpoints = [
        _filled("endpoint", health="DRAINING" if endpoint.draining else "HEALTHY", address=_address(endpoint.port))
        for endpoint in cluster.endpoints
    ]
    return _filled("endpoints", name=cluster.name, endpoints=endpoints)


def _named_hosts(route: Route) -> list[dict[str, Any]]:
    """A Service under its own name, under each tag's, and under any where it is the public one."""
    anything = ["*"] if route.public else []
    hosts = [_host(route.host, [route.host, f"{route.host}.*", *anything], route, route.targets)]
    for target in route.targets:
        if target.tag:
            name = f"{target.tag}-{route.host}"
            hosts.append(_host(name, [name, f"{name}.*"], route, [Target(target.revision, percent=100)]))
    return hosts


def _host(name: str, domains: Sequence[str], route: Route, targets: Sequence[Target]) -> dict[str, Any]:
    clusters = [{"name": target.revision, "weight": target.percent} for target in targets if target.percent]
    if not clusters:
        return _filled("unready_host", name=name, domains=domains)
    idle = f"{route.idle_timeout_s}s"  # 0s is none
    timeout = f"{route.timeout_s}s"
    return _filled("host", name=name, domains=domains, clusters=clusters, timeout=timeout, idle_timeout=idle)


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
