"""
Envoy's configuration as files: a bootstrap, and what Envoy watches and reloads (CDS, EDS, RDS, SDS).

Pure: a picture in, names and contents out. Each listener is part of the bootstrap, so that a port it cannot bind
ends Envoy rather than hides in a counter.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from localkn.ingress import Cluster, Picture, Route
from localkn.services import Target

_TYPE = "type.googleapis.com/envoy."
_HTTP = "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_UPSTREAM = "extensions.upstreams.http.v3.HttpProtocolOptions"
_UNLIMITED = 1_000_000
# Instances keep connections for longer (knative/serving#12414: the side that sends must be the first to close).
_UPSTREAM_IDLE = "60s"
PUBLIC = "public"


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
    listeners = [_listener(PUBLIC, directory, port=port, tls=tls)]
    listeners += [_listener(route.host, directory, port=route.port) for route in routes]
    return {
        "node": {"id": "localkn", "cluster": "localkn"},
        "admin": {"address": {"pipe": {"path": str(admin)}}},
        "dynamic_resources": {"cds_config": _file(directory / "cds.json")},
        "static_resources": {"listeners": listeners},
    }


def resources(directory: Path, picture: Picture, *, certificate: tuple[Path, Path] | None) -> dict[str, dict[str, Any]]:
    """Contents of each watched file, in the order in which they have to be written."""
    files = {f"eds-{cluster.name}.json": _endpoints(cluster) for cluster in picture.clusters}
    files["cds.json"] = _discovery("config.cluster.v3.Cluster", [_cluster(c, directory) for c in picture.clusters])
    for route in picture.routes:
        files[f"rds-{route.host}.json"] = _routes(route.host, [_virtual_host(route.host, ["*"], route, route.targets)])
    files[f"rds-{PUBLIC}.json"] = _routes(PUBLIC, [host for route in picture.routes for host in _named_hosts(route)])
    if certificate is not None:
        chain, key = certificate
        secret = {
            "name": PUBLIC,
            "tls_certificate": {
                "certificate_chain": {"filename": str(chain)},
                "private_key": {"filename": str(key)},
                "watched_directory": {"path": str(chain.parent)},
            },
        }
        files["sds.json"] = _discovery("extensions.transport_sockets.tls.v3.Secret", [secret])
    return files


def _listener(name: str, directory: Path, *, port: int, tls: bool = False) -> dict[str, Any]:
    manager = {
        "@type": _TYPE + _HTTP,
        "stat_prefix": name,
        "rds": {"route_config_name": name, "config_source": _file(directory / f"rds-{name}.json")},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": _TYPE + "extensions.filters.http.router.v3.Router",
                    "suppress_envoy_headers": True,
                },
            }
        ],
        "server_header_transformation": "PASS_THROUGH",
        "use_remote_address": True,
        "stream_idle_timeout": "0s",  # timeoutSeconds and idleTimeoutSeconds of the routes decide
        "upgrade_configs": [{"upgrade_type": "websocket"}],
    }
    chain: dict[str, Any] = {"filters": [{"name": "http", "typed_config": manager}]}
    if tls:
        secret = {"name": PUBLIC, "sds_config": _file(directory / "sds.json")}
        context = {"alpn_protocols": ["h2", "http/1.1"], "tls_certificate_sds_secret_configs": [secret]}
        chain["transport_socket"] = {
            "name": "tls",
            "typed_config": {
                "@type": _TYPE + "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": context,
            },
        }
    return {"name": name, "address": _address(port), "filter_chains": [chain]}


def _cluster(cluster: Cluster, directory: Path) -> dict[str, Any]:
    protocol = "http2_protocol_options" if cluster.http2 else "http_protocol_options"
    limits: dict[str, Any] = {
        "thresholds": [dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), _UNLIMITED)]
    }
    if cluster.container_concurrency:
        # HTTP/1.1 carries one request a connection, so this is the hard limit of an instance; the rest queues here.
        limits["thresholds"][0]["max_pending_requests"] = cluster.queue_limit
        limits["per_host_thresholds"] = [{"max_connections": cluster.container_concurrency}]
    return {
        "@type": _TYPE + "config.cluster.v3.Cluster",
        "name": cluster.name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": _file(directory / f"eds-{cluster.name}.json")},
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},  # a draining instance gets nothing, ever
        "circuit_breakers": limits,
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _TYPE + _UPSTREAM,
                "common_http_protocol_options": {"idle_timeout": _UPSTREAM_IDLE},
                "explicit_http_config": {protocol: {}},
            }
        },
    }


def _endpoints(cluster: Cluster) -> dict[str, Any]:
    endpoints = [
        {
            "health_status": "DRAINING" if endpoint.draining else "HEALTHY",
            "endpoint": {"address": _address(endpoint.port)},
        }
        for endpoint in cluster.endpoints
    ]
    assignment = {"cluster_name": cluster.name, "endpoints": [{"lb_endpoints": endpoints}]}
    return _discovery("config.endpoint.v3.ClusterLoadAssignment", [assignment])


def _routes(name: str, hosts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    configuration = {"name": name, "virtual_hosts": hosts, "ignore_port_in_host_matching": True}
    return _discovery("config.route.v3.RouteConfiguration", [configuration])


def _named_hosts(route: Route) -> list[dict[str, Any]]:
    """A Service under its own name, under each tag's, and under any where it is the public one."""
    anything = ["*"] if route.public else []
    hosts = [_virtual_host(route.host, [route.host, f"{route.host}.*", *anything], route, route.targets)]
    for target in route.targets:
        if target.tag:
            host = f"{target.tag}-{route.host}"
            hosts.append(_virtual_host(host, [host, f"{host}.*"], route, [Target(target.revision, percent=100)]))
    return hosts


def _virtual_host(name: str, domains: Sequence[str], route: Route, targets: Sequence[Target]) -> dict[str, Any]:
    weighted = [{"name": target.revision, "weight": target.percent} for target in targets if target.percent]
    if not weighted:
        answer = {"status": 503, "body": {"inline_string": f"no revision of {route.host} is ready"}}
        return {"name": name, "domains": domains, "routes": [{"match": {"prefix": "/"}, "direct_response": answer}]}
    action: dict[str, Any] = {
        "weighted_clusters": {"clusters": weighted},
        "timeout": f"{route.timeout_s}s",
        # Only what has surely not reached an instance is sent again, and to another one.
        "retry_policy": {
            "retry_on": "connect-failure,refused-stream,reset-before-request",
            "num_retries": 3,
            "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {"@type": _TYPE + "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
                }
            ],
            "host_selection_retry_max_attempts": 5,
        },
    }
    if route.idle_timeout_s:
        action["idle_timeout"] = f"{route.idle_timeout_s}s"
    return {"name": name, "domains": domains, "routes": [{"match": {"prefix": "/"}, "route": action}]}


def _discovery(kind: str, found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"resources": [{"@type": _TYPE + kind, **resource} for resource in found]}


def _file(path: Path) -> dict[str, Any]:
    return {"path_config_source": {"path": str(path)}, "resource_api_version": "V3"}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
