"""What a revision's template means on this machine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from localkn.kpa import Settings
from localkn.probes import Probe
from localkn.quantities import parse_duration_ns, parse_quantity

_PROGRESS_DEADLINE_S = 60
"""Knative waits 600 s; on this machine nothing has to be pulled or scheduled."""


@dataclass(frozen=True, slots=True)
class Template:
    """A validated `spec.template`, defaults filled in. Environment and volumes stay as they were written."""

    image: str
    args: Sequence[str]
    env: Sequence[Mapping[str, Any]]
    env_from: Sequence[Mapping[str, Any]]
    volumes: Sequence[Mapping[str, Any]]
    mounts: Mapping[str, str]
    readiness: Probe
    liveness: Probe | None
    startup: Probe | None
    settings: Settings
    container_concurrency: int
    timeout_s: int
    idle_timeout_s: int
    progress_deadline_s: int
    cpu_limit: str | None
    http2: bool

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> "Template":
        """Read a template that `validation.service_faults` found nothing wrong with."""
        annotations = (body.get("metadata") or {}).get("annotations") or {}
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
        concurrency = pod.get("containerConcurrency") or 0
        return cls(
            image=container["image"],
            args=container.get("args") or (),
            env=container.get("env") or (),
            env_from=container.get("envFrom") or (),
            volumes=pod.get("volumes") or (),
            mounts={mount["name"]: mount["mountPath"] for mount in container.get("volumeMounts") or ()},
            readiness=probes.get("readinessProbe", Probe()),
            liveness=probes.get("livenessProbe"),
            startup=probes.get("startupProbe"),
            settings=Settings.from_annotations(annotations, container_concurrency=concurrency),
            container_concurrency=concurrency,
            timeout_s=pod.get("timeoutSeconds") or 300,
            idle_timeout_s=pod.get("idleTimeoutSeconds") or 0,
            progress_deadline_s=parse_duration_ns(deadline) // 10**9 if deadline else _PROGRESS_DEADLINE_S,
            cpu_limit=f"{parse_quantity(str(cpu_limit)).normalize():f}" if cpu_limit is not None else None,
            http2=port.get("name") == "h2c",
        )
