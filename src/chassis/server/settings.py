"""Settings of every function, read from its environment."""

from dataclasses import dataclass

from chassis.auth.settings import AuthSettings
from chassis.environment import Reader


@dataclass(frozen=True)
class ServingSettings:
    """
    The limits and times of one instance.

    Attributes:
        host: Address to listen on: loopback, unless a container sets another one.
        port: Port to listen on; Knative sets it.
        metrics_port: Port of the metrics; 0 for none. It differs from *port*, which is public.
        revision: Name of the revision, shown in receipts; Knative sets it.
        max_body_bytes: Length of the longest accepted body; a longer body gets 413.
        default_timeout_s: Time budget of a request that does not set one.
        max_timeout_s: Longest budget that a request may set.
        keep_alive_s: How long an idle connection stays open. It exceeds 90 s, because Knative's queue-proxy reuses
            connections for that time, and would otherwise send a request into a closing connection.
        drain_linger_s: After SIGTERM, how long idle connections may still bring a request.
        drain_timeout_s: After SIGTERM, how long requests in flight may take.
        stats_socket: Unix datagram socket that receives the concurrency of the instance each second; empty for none.
        pod: Name of the instance in these reports.
        auth: How callers authenticate.
        trace_endpoint: OTLP collector that receives spans over HTTP; empty for none.
        trace_ratio: Share of recorded traces among those that begin here.
    """

    host: str
    port: int
    metrics_port: int
    revision: str
    max_body_bytes: int
    default_timeout_s: float
    max_timeout_s: float
    keep_alive_s: int
    drain_linger_s: float
    drain_timeout_s: int
    stats_socket: str
    pod: str
    auth: AuthSettings
    trace_endpoint: str
    trace_ratio: float

    @classmethod
    def read(cls, env: Reader, *, name: str, max_body_bytes: int) -> "ServingSettings":
        """Read the settings of the function *name*, and add their faults to *env*."""
        settings = cls(
            host=env.text("HOST", "127.0.0.1"),
            port=env.integer("PORT", 8080, least=1, most=65535),
            metrics_port=env.integer("METRICS_PORT", 9464, most=65535),
            revision=env.text("K_REVISION", name),
            max_body_bytes=env.integer("MAX_BODY_BYTES", max_body_bytes, least=1024),
            default_timeout_s=env.number("REQUEST_TIMEOUT_S", 1.0, least=0.001),
            max_timeout_s=env.number("MAX_REQUEST_TIMEOUT_S", 10.0, least=0.001),
            keep_alive_s=env.integer("KEEP_ALIVE_S", 120, least=91),
            drain_linger_s=env.number("DRAIN_LINGER_S", 0.5, most=60.0),
            drain_timeout_s=env.integer("DRAIN_TIMEOUT_S", 30, least=1),
            stats_socket=env.optional("LOCALKN_STATS") or "",
            pod=env.text("LOCALKN_POD", name),
            auth=AuthSettings.read(env),
            trace_endpoint=env.optional("OTEL_EXPORTER_OTLP_ENDPOINT") or "",
            trace_ratio=env.number("OTEL_TRACES_SAMPLER_ARG", 0.01, most=1.0),
        )
        env.require(settings.metrics_port != settings.port, f"METRICS_PORT must not be PORT ({settings.port})")
        env.require(
            settings.default_timeout_s <= settings.max_timeout_s,
            f"REQUEST_TIMEOUT_S ({settings.default_timeout_s}) must not exceed "
            f"MAX_REQUEST_TIMEOUT_S ({settings.max_timeout_s})",
        )
        return settings
