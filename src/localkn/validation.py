"""
What Knative's webhook refuses in a Service, with the path of every fault.

Source: knative/serving pkg/apis/serving (fieldmask.go, k8s_validation.go, metadata_validation.go) and
v1/*_validation.go, with the feature flags at their defaults.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from posixpath import normpath
from typing import Any, Final

import yaml

from localkn.kpa.settings import GROUP as AUTOSCALING
from localkn.kpa.settings import faults as autoscaling_faults
from localkn.quantities import parse_duration_ns, parse_quantity

Fault = tuple[str, str]

_FIELDS: Final = yaml.safe_load(Path(__file__).with_name("fields.yaml").read_text("utf-8"))
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "text": (str,), "number": (int,), "truth": (bool,), "text-or-number": (str, int, float),
}  # fmt: skip
_LABEL: Final = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_RESERVED_ENV: Final = {"PORT", "K_SERVICE", "K_CONFIGURATION", "K_REVISION"}
_RESERVED_PORTS: Final = {8008, 8012, 8013, 8022, 9090, 9091}
_NETWORKING: Final = {
    f"networking.knative.dev/{name}"
    for name in (
        "ingress-class", "certificate-class", "disable-auto-tls", "disable-external-domain-tls", "http-option",
        "ingress.class", "certificate.class", "disableAutoTLS", "httpProtocol", "http-protocol",
    )
}  # fmt: skip


def service_faults(service: Mapping[str, Any]) -> list[Fault]:
    """List every fault of a Knative Service as (path, message); empty where Knative would accept it."""
    # The checks of values rely on every field being known and of its type.
    return list(_field_faults(service, _FIELDS, path="")) or list(_service(service))


def _field_faults(value: Any, shape: Any, *, path: str) -> Iterator[Fault]:
    if value is None or shape == "any":
        return
    if shape == "texts":
        shape = dict.fromkeys(value if isinstance(value, dict) else (), "text")
    if isinstance(shape, dict) and isinstance(value, dict):
        for key, item in value.items():
            at = f"{path}.{key}" if path else str(key)
            if key in shape:
                yield from _field_faults(item, shape[key], path=at)
            else:
                yield at, "Knative does not know this field, or forbids it"
    elif isinstance(shape, list) and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _field_faults(item, shape[0], path=f"{path}[{index}]")
    elif not isinstance(shape, str):
        yield path, f"must be a {'list' if isinstance(shape, list) else 'mapping'}, not {value!r}"
    elif not isinstance(value, _TYPES[shape]) or (isinstance(value, bool) and shape != "truth"):
        yield path, f"must be a {shape}, not {value!r}"


def _service(service: Mapping[str, Any]) -> Iterator[Fault]:
    metadata, spec = service.get("metadata") or {}, service.get("spec") or {}
    name = metadata.get("name", "")
    if not _LABEL.fullmatch(name):
        yield "metadata.name", f"{name!r} is no DNS label of at most 63 characters"
    for key, value in (metadata.get("annotations") or {}).items():
        at = f"metadata.annotations[{key}]"
        if key.startswith(AUTOSCALING):
            yield at, 'autoscaling annotations must be put under "spec.template.metadata.annotations" to work'
        elif key == "serving.knative.dev/rollout-duration":
            yield from _whole_seconds(value, at=at)
    template = spec.get("template") or {}
    yield from _prefixed("spec.template.", _template(template, service=name))
    yield from _prefixed("spec.template.spec.", _pod(template.get("spec") or {}))
    if spec.get("traffic"):
        yield from _prefixed("spec.traffic", _traffic(spec["traffic"]))


def _template(template: Mapping[str, Any], *, service: str) -> Iterator[Fault]:
    metadata = template.get("metadata") or {}
    name, annotations = metadata.get("name"), metadata.get("annotations") or {}
    if name is not None and not (_LABEL.fullmatch(name) and name.startswith(f"{service}-")):
        yield "metadata.name", f'{name!r} must be a DNS label with prefix "{service}-"'
    for key, message in autoscaling_faults(annotations):
        yield f"metadata.annotations[{key}]", message
    for key, value in annotations.items():
        at = f"metadata.annotations[{key}]"
        if key.startswith("networking.knative.dev") and key not in _NETWORKING:
            yield at, "Knative does not know this annotation"
        elif key == "serving.knative.dev/progress-deadline":
            yield from _whole_seconds(value, at=at)
        elif key.startswith("queue.sidecar.") and key.endswith(("-request", "-limit")):
            yield from _quantity(value, at=at)


def _pod(pod: Mapping[str, Any]) -> Iterator[Fault]:
    for field, limit in (("containerConcurrency", 1000), ("timeoutSeconds", 600)):
        if not 0 <= pod.get(field, 0) <= limit:
            yield field, f"{pod[field]} is outside 0..{limit}"
    if pod.get("automountServiceAccountToken"):
        yield "automountServiceAccountToken", "may only be false"
    containers = pod.get("containers") or []
    if not containers:
        yield "containers", "is missing"
    if len(containers) > 1:
        yield "containers", "Knative allows sidecars, this machine runs one container per instance"
    mounts = [mount for container in containers for mount in container.get("volumeMounts") or []]
    yield from _volumes(pod.get("volumes") or [], mounts=mounts)
    for index, container in enumerate(containers):
        yield from _prefixed(f"containers[{index}].", _container(container))


def _container(container: Mapping[str, Any]) -> Iterator[Fault]:
    if not container.get("image"):
        yield "image", "is missing"
    if container.get("name") == "queue-proxy":
        yield "name", '"queue-proxy" is a reserved container name'
    if (container.get("securityContext") or {}).get("privileged"):
        yield "securityContext.privileged", "may only be false"
    yield from _ports(container.get("ports") or [])
    for index, variable in enumerate(container.get("env") or []):
        yield from _prefixed(f"env[{index}].", _variable(variable))
    for index, source in enumerate(container.get("envFrom") or []):
        yield from _one_of(source, ("configMapRef", "secretRef"), at=f"envFrom[{index}]")
    for kind in ("readinessProbe", "livenessProbe", "startupProbe"):
        if container.get(kind) is not None:
            yield from _prefixed(f"{kind}.", _probe(container[kind], readiness=kind == "readinessProbe"))
    yield from _prefixed("resources.", _resources(container.get("resources") or {}))


def _ports(ports: Sequence[Mapping[str, Any]]) -> Iterator[Fault]:
    if len(ports) > 1:
        yield "ports", "more than one container port is set"
    for port in ports[:1]:
        number = port.get("containerPort", 0)
        if number in _RESERVED_PORTS or not 0 <= number <= 65535:
            yield "ports[0].containerPort", f"{number} is reserved or outside 0..65535"
        if port.get("name", "") not in {"", "http1", "h2c"}:
            yield "ports[0].name", f"{port['name']!r} must be empty, http1 or h2c"
        if port.get("protocol", "TCP") != "TCP":
            yield "ports[0].protocol", "must be TCP"


def _variable(variable: Mapping[str, Any]) -> Iterator[Fault]:
    name = variable.get("name", "")
    if not name or "=" in name:
        yield "name", f"{name!r} is no name of a variable"
    elif name in _RESERVED_ENV:
        yield "name", f'"{name}" is a reserved environment variable'
    if variable.get("valueFrom") is not None:
        yield from _one_of(variable["valueFrom"], ("configMapKeyRef", "secretKeyRef"), at="valueFrom")
        if variable.get("value"):
            yield "valueFrom", "may not be given beside value"


def _probe(probe: Mapping[str, Any], *, readiness: bool) -> Iterator[Fault]:
    handlers = [handler for handler in ("httpGet", "tcpSocket", "exec", "grpc") if probe.get(handler) is not None]
    if len(handlers) > 1 or (not handlers and not readiness):
        yield "httpGet", "exactly one of httpGet, tcpSocket, exec, grpc is wanted"
    low = {"initialDelaySeconds": 0, "periodSeconds": 0}
    if readiness and not probe.get("periodSeconds"):
        for field in ("failureThreshold", "timeoutSeconds"):
            if probe.get(field):
                yield field, "is disallowed when periodSeconds is zero"
    else:
        low |= {"timeoutSeconds": 1, "failureThreshold": 1, "successThreshold": 1}
    for field, least in low.items():
        if field in probe and probe[field] < least:
            yield field, f"{probe[field]} is below {least}"
    if (probe.get("httpGet") or {}).get("scheme", "HTTP").upper() != "HTTP":
        yield "httpGet.scheme", "instances on this machine are probed over HTTP only"


def _resources(resources: Mapping[str, Any]) -> Iterator[Fault]:
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    faults = [
        *(fault for name, text in requests.items() for fault in _quantity(text, at=f"requests.{name}")),
        *(fault for name, text in limits.items() for fault in _quantity(text, at=f"limits.{name}")),
    ]
    yield from faults
    for name in set() if faults else set(requests) & set(limits):
        if parse_quantity(str(requests[name])) > parse_quantity(str(limits[name])):
            yield f"requests.{name}", f"{requests[name]} is more than the limit {limits[name]}"


def _volumes(volumes: Sequence[Mapping[str, Any]], *, mounts: Sequence[Mapping[str, Any]]) -> Iterator[Fault]:
    names = Counter(volume.get("name", "") for volume in volumes)
    mounted = {mount.get("name") for mount in mounts}
    for index, volume in enumerate(volumes):
        name = volume.get("name", "")
        if not _LABEL.fullmatch(name) or names[name] > 1 or name not in mounted:
            yield f"volumes[{index}].name", f"{name!r} is no label, is there twice, or is not mounted"
        yield from _one_of(volume, ("secret", "configMap", "projected", "emptyDir"), at=f"volumes[{index}]")
    paths = Counter(normpath(mount.get("mountPath", "")) for mount in mounts)
    for index, mount in enumerate(mounts):
        at, path = f"containers[0].volumeMounts[{index}]", normpath(mount.get("mountPath", ""))
        if mount.get("name") not in names:
            yield f"{at}.name", f"there is no volume {mount.get('name')!r}"
        if not path.startswith("/") or path in {"/", "/dev", "/dev/log"} or paths[path] > 1:
            yield f"{at}.mountPath", f"{path!r} is relative, reserved, or there twice"
        if mount.get("subPath"):
            yield f"{at}.subPath", "is not supported on this machine"


def _traffic(targets: Sequence[Mapping[str, Any]]) -> Iterator[Fault]:
    tags = Counter(target["tag"] for target in targets if target.get("tag"))
    for index, target in enumerate(targets):
        if not 0 <= (target.get("percent") or 0) <= 100:
            yield f"[{index}].percent", f"{target['percent']} is outside 0..100"
        if target.get("latestRevision") is not None and bool(target.get("revisionName")) == target["latestRevision"]:
            yield f"[{index}].latestRevision", "exactly one of revisionName and latestRevision: true is wanted"
        if (tag := target.get("tag")) and not _LABEL.fullmatch(tag):
            yield f"[{index}].tag", f"{tag!r} is no DNS label"
        if tag and tags[tag] > 1:
            yield f"[{index}].tag", f"{tag!r} is there more than once"
    total = sum(target.get("percent") or 0 for target in targets)
    if total != 100:
        yield "", f"Traffic targets sum to {total}, want 100"


def _one_of(value: Mapping[str, Any], fields: Sequence[str], *, at: str) -> Iterator[Fault]:
    if sum(value.get(field) is not None for field in fields) != 1:
        yield at, f"exactly one of {', '.join(fields)} is wanted"


def _whole_seconds(text: str, *, at: str) -> Iterator[Fault]:
    try:
        nanoseconds = parse_duration_ns(text)
    except ValueError as error:
        yield at, str(error)
        return
    if nanoseconds < 0 or nanoseconds % 10**9:
        yield at, f"{text!r} must be positive and whole seconds"


def _quantity(text: Any, *, at: str) -> Iterator[Fault]:
    try:
        parse_quantity(str(text))
    except ValueError as error:
        yield at, str(error)


def _prefixed(prefix: str, faults: Iterator[Fault]) -> Iterator[Fault]:
    for path, message in faults:
        yield prefix + path, message
