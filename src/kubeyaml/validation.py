"""
What Knative's webhook refuses in a Service, with the path of every fault.

`fields.yaml` says what may stand in each field; here is what reads it, and the rules that join several fields.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from posixpath import normpath
from typing import Any, Final

import yaml

from kubeyaml.annotations import SCALING, canonical
from kubeyaml.quantities import parse_duration_ns, parse_quantity

Fault = tuple[str, str]

_FIELDS: Final = yaml.safe_load(Path(__file__).with_name("fields.yaml").read_text("utf-8"))
_RESERVED_PATHS: Final = {"/", "/dev", "/dev/log"}


def service_faults(service: Mapping[str, Any]) -> list[Fault]:
    """List every fault of a Knative Service as (path, message); empty where Knative would accept it."""
    # The rules rely on every field being known and of its kind.
    return list(_field_faults(service, _FIELDS, path="")) or list(_rule_faults(service))


def _field_faults(value: Any, shape: Any, *, path: str) -> Iterator[Fault]:
    if value is None or shape == "any":
        return
    if isinstance(shape, dict) and isinstance(value, dict):
        yield from _mapping_faults(value, shape, path=path)
    elif isinstance(shape, list) and isinstance(value, list):
        if len(value) > (most := shape[1] if len(shape) > 1 else len(value)):
            yield path, f"at most {most} can run here"
        for index, item in enumerate(value):
            yield from _field_faults(item, shape[0], path=f"{path}[{index}]")
    elif not isinstance(shape, str):
        yield path, f"must be a {'list' if isinstance(shape, list) else 'mapping'}, not {value!r}"
    elif reason := _refusal(value, shape):
        yield path, f"{value!r} {reason}"


def _mapping_faults(value: Mapping[str, Any], shape: Mapping[str, Any], *, path: str) -> Iterator[Fault]:
    prefix = f"{path}." if path else ""
    if "annotations" in path:
        value = canonical(value)
    for key, item in value.items():
        reason = next((why for start, why in shape.get(".not", {}).items() if key.startswith(start)), None)
        if key in shape or (".other" in shape and reason is None):
            yield from _field_faults(item, shape.get(key, shape.get(".other")), path=f"{prefix}{key}")
        else:
            yield f"{prefix}{key}", reason or "is not known to Knative, or forbidden"
    for key in shape.get(".needs", ()):
        if not value.get(key):
            yield f"{prefix}{key}", "is missing"
    if (choice := shape.get(".one")) and sum(value.get(key) is not None for key in choice) != 1:
        yield path, f"exactly one of {', '.join(choice)} is wanted"


def _refusal(value: Any, shape: str) -> str | None:
    """Why *value* may not stand where `fields.yaml` says *shape*; None where it may."""
    kind, _, rest = shape.partition(" ")
    if kind == "one":
        words = [word.strip('"') for word in rest.split()[1:]]
        return None if str(value) in words else f"is none of {', '.join(word for word in words if word)}"
    read = _KINDS[kind]
    try:
        number = read(value)
    except (ValueError, TypeError):
        return f"is no {kind}"
    as_number = read if kind in {"duration", "seconds"} else float
    low, high = (as_number(end) if end else None for end in (rest or "..").split(".."))
    within = (low is None or low <= number) and (high is None or number <= high)
    return None if within else f"is outside {rest}"


def _matching(pattern: str, read: Callable[[str], Any]) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not re.fullmatch(pattern, value):
            raise ValueError
        return read(value)

    return check


def _typed(kind: type) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if type(value) is not kind:  # bool is an int, but true is no number
            raise TypeError
        return value

    return check


def _seconds(text: str) -> float:
    seconds, rest = divmod(parse_duration_ns(text), 10**9)
    if rest:
        raise ValueError
    return seconds


_KINDS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "text": _typed(str),
    "truth": _typed(bool),
    "number": _typed(int),
    "port": lambda value: _matching(r"(?!(8008|8012|8013|8022|9090|9091)$).*", int)(str(_typed(int)(value))),
    "label": _matching(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", str),
    "env": _matching(r"(?!(PORT|K_SERVICE|K_CONFIGURATION|K_REVISION)$)[^=]+", str),
    "container": _matching(r"(?!queue-proxy$).*", str),
    "whole": _matching(r"[+-]?\d+", int),
    "decimal": _matching(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", float),
    "duration": parse_duration_ns,
    "seconds": _seconds,
    "quantity": lambda value: parse_quantity(str(value)),
}


def _rule_faults(service: Mapping[str, Any]) -> Iterator[Fault]:
    name, template, pod = service["metadata"]["name"], service["spec"]["template"], service["spec"]["template"]["spec"]
    about = template.get("metadata") or {}
    if about.get("name") and not about["name"].startswith(f"{name}-"):
        yield "spec.template.metadata.name", f'{about["name"]!r} must have prefix "{name}-"'
    for key, message in _scaling(canonical(about.get("annotations") or {})):
        yield f"spec.template.metadata.annotations.{SCALING}/{key}", message
    for path, message in _container(pod["containers"][0]):
        yield f"spec.template.spec.containers[0].{path}", message
    for path, message in _mounts(pod.get("volumes") or (), pod["containers"][0].get("volumeMounts") or ()):
        yield f"spec.template.spec.{path}", message
    for path, message in _traffic(service["spec"].get("traffic") or ()):
        yield f"spec.traffic{path}", message


def _scaling(annotations: Mapping[str, str]) -> Iterator[Fault]:
    def given(name: str, default: str = "0") -> str:
        return annotations.get(f"{SCALING}/{name}", default)

    low, high, activation = (int(given(name)) for name in ("min-scale", "max-scale", "activation-scale"))
    if high and high < low:
        yield "max-scale", f"max-scale={high} is less than min-scale={low}"
    if activation and not low <= activation <= (high or activation):
        yield "activation-scale", f"activation-scale={activation} is outside min-scale={low}..max-scale={high}"
    if -1 < float(given("target-burst-capacity")) < 0:
        yield "target-burst-capacity", "must be -1 or at least 0"
    kpa, scaling_class = f"kpa.{SCALING}", given("class", f"kpa.{SCALING}")
    if scaling_class.endswith(SCALING) and scaling_class not in {kpa, f"hpa.{SCALING}"}:
        yield "class", f"{scaling_class!r} is neither {kpa} nor hpa.{SCALING}"
    if scaling_class == kpa and given("metric", "rps") not in {"concurrency", "rps"}:
        yield "metric", f"{given('metric')!r} is neither concurrency nor rps"
    # As in Knative, looked at only where the class is spelled out.
    algorithm = given("metric-aggregation-algorithm", "")
    if given("class", "") == kpa and algorithm not in {"", "linear", "weighted-exponential", "weightedExponential"}:
        yield "metric-aggregation-algorithm", f"{algorithm!r} is neither linear nor weighted-exponential"


def _container(container: Mapping[str, Any]) -> Iterator[Fault]:
    for index, variable in enumerate(container.get("env") or ()):
        if variable.get("value") and variable.get("valueFrom"):
            yield f"env[{index}].valueFrom", "may not be given beside value"
    readiness = container.get("readinessProbe") or {}
    for field in ("failureThreshold", "timeoutSeconds"):
        if readiness.get(field) and not readiness.get("periodSeconds"):
            yield f"readinessProbe.{field}", "is disallowed when periodSeconds is zero"
    resources = container.get("resources") or {}
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for name in requests.keys() & limits.keys():
        if parse_quantity(str(requests[name])) > parse_quantity(str(limits[name])):
            yield f"resources.requests.{name}", f"{requests[name]} is more than the limit {limits[name]}"


def _mounts(volumes: Sequence[Mapping[str, Any]], mounts: Sequence[Mapping[str, Any]]) -> Iterator[Fault]:
    names = Counter(volume["name"] for volume in volumes)
    for name, times in names.items():
        if times > 1 or name not in {mount["name"] for mount in mounts}:
            yield "volumes", f"{name!r} is there twice, or not mounted"
    paths = Counter(normpath(mount["mountPath"]) for mount in mounts)
    for index, mount in enumerate(mounts):
        path = normpath(mount["mountPath"])
        if mount["name"] not in names:
            yield f"containers[0].volumeMounts[{index}].name", f"there is no volume {mount['name']!r}"
        if not path.startswith("/") or path in _RESERVED_PATHS or paths[path] > 1:
            yield f"containers[0].volumeMounts[{index}].mountPath", f"{path!r} is relative, reserved, or there twice"


def _traffic(targets: Sequence[Mapping[str, Any]]) -> Iterator[Fault]:
    tags = Counter(target["tag"] for target in targets if target.get("tag"))
    for index, target in enumerate(targets):
        latest = target.get("latestRevision")
        if latest is not None and bool(target.get("revisionName")) == latest:
            yield f"[{index}].latestRevision", "exactly one of revisionName and latestRevision: true is wanted"
        if tags[target.get("tag")] > 1:
            yield f"[{index}].tag", f"{target['tag']!r} is there more than once"
    total = sum(target.get("percent") or 0 for target in targets)
    if targets and total != 100:
        yield "", f"Traffic targets sum to {total}, want 100"
