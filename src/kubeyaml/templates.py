"""The template of a revision, defaults filled in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kubeyaml.annotations import annotations_of
from kubeyaml.quantities import parse_duration_ns, parse_quantity


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe of a container: HTTP if it has a path, else a TCP connection. A port of None means the container's port."""

    path: str | None = None
    port: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    period_s: int = 0
    timeout_s: int = 1
    initial_delay_s: int = 0
    successes: int = 1
    failures: int = 3

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], *, container_port: Mapping[str, Any]) -> "Probe":
        """
        Read a probe; exec, gRPC and HTTPS probes become TCP probes, because only the image has what they need.

        Args:
            spec: The probe of the manifest.
            container_port: Its container's port; a probe of that port goes to the one the instance got.
        """
        handler = spec.get("httpGet") or spec.get("tcpSocket") or {}
        own = {"", "0", str(container_port.get("containerPort", 8080)), container_port.get("name") or "http"}
        port = str(handler.get("port") or "")
        is_http = spec.get("httpGet") is not None and handler.get("scheme") != "HTTPS"
        return cls(
            path=(handler.get("path") or "/") if is_http else None,
            port=None if port in own else int(port),
            headers={header["name"]: header.get("value") or "" for header in handler.get("httpHeaders") or ()},
            period_s=spec.get("periodSeconds") or 0,
            timeout_s=spec.get("timeoutSeconds") or 1,
            initial_delay_s=spec.get("initialDelaySeconds") or 0,
            successes=spec.get("successThreshold") or 1,
            failures=spec.get("failureThreshold") or 3,
        )


@dataclass(frozen=True, slots=True)
class Mount:
    """A volume, or the part of it at `sub_path`, at a path of the container."""

    volume: str
    path: str
    sub_path: str = ""


@dataclass(frozen=True, slots=True)
class Template:
    """
    A validated `spec.template`, defaults filled in. Environment, volumes and annotations stay as they were written.

    Without its annotation, `progress_deadline_s` has no value (None).
    """

    image: str
    args: Sequence[str]
    env: Sequence[Mapping[str, Any]]
    env_from: Sequence[Mapping[str, Any]]
    volumes: Sequence[Mapping[str, Any]]
    mounts: Sequence[Mount]
    readiness: Probe
    liveness: Probe | None
    startup: Probe | None
    annotations: Mapping[str, str]
    container_concurrency: int
    timeout_s: int
    idle_timeout_s: int
    progress_deadline_s: int | None
    cpu_limit: str | None
    http2: bool

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> "Template":
        """Read a template that `validation.service_faults` found nothing wrong with."""
        annotations = annotations_of(body)
        pod = body["spec"]
        container = pod["containers"][0]
        port = (container.get("ports") or [{}])[0]
        probes = {
            kind: Probe.from_spec(container[kind], container_port=port)
            for kind in ("readinessProbe", "livenessProbe", "startupProbe")
            if container.get(kind)
        }
        deadline = annotations.get("serving.knative.dev/progress-deadline")
        cpu_limit = ((container.get("resources") or {}).get("limits") or {}).get("cpu")
        return cls(
            image=container["image"],
            args=container.get("args") or (),
            env=container.get("env") or (),
            env_from=container.get("envFrom") or (),
            volumes=pod.get("volumes") or (),
            mounts=[
                Mount(mount["name"], mount["mountPath"], mount.get("subPath") or "")
                for mount in container.get("volumeMounts") or ()
            ],
            readiness=probes.get("readinessProbe", Probe()),
            liveness=probes.get("livenessProbe"),
            startup=probes.get("startupProbe"),
            annotations=annotations,
            container_concurrency=pod.get("containerConcurrency") or 0,
            timeout_s=pod.get("timeoutSeconds") or 300,
            idle_timeout_s=pod.get("idleTimeoutSeconds") or 0,
            progress_deadline_s=parse_duration_ns(deadline) // 10**9 if deadline else None,
            cpu_limit=f"{parse_quantity(str(cpu_limit)).normalize():f}" if cpu_limit is not None else None,
            http2=port.get("name") == "h2c",
        )
