"""
The checks of Knative's webhooks; each fault has its path.

`service.yaml`, `eventing.yaml` and `configuration.yaml` hold the permitted content of each field; this module
holds the rules across fields.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from posixpath import normpath
from typing import Any, Final
from urllib.parse import urlsplit

from kubeyaml.annotations import SCALING, canonical
from kubeyaml.eventing import is_eventing
from kubeyaml.fields import FieldFault, field_faults, shapes
from kubeyaml.quantities import parse_quantity
from kubeyaml.resources import Resource

_SERVICE, _EVENTING, _CONFIGURATION = shapes("service.yaml"), shapes("eventing.yaml"), shapes("configuration.yaml")
IMAGE_VOLUMES: Final = "kubernetes.podspec-volumes-image"
"""The feature that image volumes need; an entry of the ConfigMap `config-features`, as on a cluster."""

_DIALECTS: Final = ("exact", "prefix", "suffix", "all", "any", "not")
_RESERVED_PATHS: Final = {"/", "/dev", "/dev/log"}


def faults(resource: Resource, *, features: Collection[str] = ()) -> list[str]:
    """
    Return every fault of an object, one line each; none for an unknown kind.

    Args:
        resource: The object.
        features: The features of Knative that are enabled beyond its defaults.
    """
    # The rules need fields that are known and have the right type.
    if resource.is_service:
        found = service_faults(resource.body, features=features)
    elif not resource.api_group and resource.kind in _CONFIGURATION:
        found = list(field_faults(resource.body, _CONFIGURATION[resource.kind]))
    elif is_eventing(resource):
        found = list(field_faults(resource.body, _EVENTING[resource.kind])) or list(_eventing_rule_faults(resource))
    else:
        found = []
    return [resource.fault(path, message) for path, message in found]


def service_faults(service: Mapping[str, Any], *, features: Collection[str] = ()) -> list[FieldFault]:
    """List every fault of a Knative Service as (path, message); empty if Knative would accept it."""
    return list(field_faults(service, _SERVICE)) or list(_service_rule_faults(service, features))


def enabled_features(resources: Iterable[Resource]) -> set[str]:
    """Return what a ConfigMap `config-features` among *resources* enables."""
    data = [r.body.get("data") or {} for r in resources if (r.kind, r.name) == ("ConfigMap", "config-features")]
    return {name for each in data for name, value in each.items() if value == "enabled"}


def _service_rule_faults(service: Mapping[str, Any], features: Collection[str]) -> Iterator[FieldFault]:
    name, template, pod = service["metadata"]["name"], service["spec"]["template"], service["spec"]["template"]["spec"]
    about = template.get("metadata") or {}
    if about.get("name") and not about["name"].startswith(f"{name}-"):
        yield "spec.template.metadata.name", f'{about["name"]!r} must have prefix "{name}-"'
    for key, message in _scaling(canonical(about.get("annotations") or {})):
        yield f"spec.template.metadata.annotations.{SCALING}/{key}", message
    for path, message in _container(pod["containers"][0]):
        yield f"spec.template.spec.containers[0].{path}", message
    for index, volume in enumerate(pod.get("volumes") or ()):
        if volume.get("image") is not None and IMAGE_VOLUMES not in features:
            message = f"needs the feature {IMAGE_VOLUMES}, which is off by default; enable it in config-features"
            yield f"spec.template.spec.volumes[{index}].image", message
    for path, message in _mounts(pod.get("volumes") or (), pod["containers"][0].get("volumeMounts") or ()):
        yield f"spec.template.spec.{path}", message
    for path, message in _traffic(service["spec"].get("traffic") or ()):
        yield f"spec.traffic{path}", message


def _scaling(annotations: Mapping[str, str]) -> Iterator[FieldFault]:
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
    # As in Knative, checked only if the class is given.
    algorithm = given("metric-aggregation-algorithm", "")
    if given("class", "") == kpa and algorithm not in {"", "linear", "weighted-exponential", "weightedExponential"}:
        yield "metric-aggregation-algorithm", f"{algorithm!r} is neither linear nor weighted-exponential"


def _container(container: Mapping[str, Any]) -> Iterator[FieldFault]:
    for index, variable in enumerate(container.get("env") or ()):
        if variable.get("value") and variable.get("valueFrom"):
            yield f"env[{index}].valueFrom", "may not be given beside value"
    readiness = container.get("readinessProbe") or {}
    for field in ("failureThreshold", "timeoutSeconds"):
        if readiness.get(field) and not readiness.get("periodSeconds"):
            yield f"readinessProbe.{field}", "is disallowed when periodSeconds is zero"
    yield from _probe_ports(container)
    resources = container.get("resources") or {}
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for name in requests.keys() & limits.keys():
        if parse_quantity(str(requests[name])) > parse_quantity(str(limits[name])):
            yield f"resources.requests.{name}", f"{requests[name]} is more than the limit {limits[name]}"


def _probe_ports(container: Mapping[str, Any]) -> Iterator[FieldFault]:
    name = ((container.get("ports") or [{}])[0]).get("name") or "http"
    for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
        for handler in ("httpGet", "tcpSocket"):
            port = ((container.get(probe) or {}).get(handler) or {}).get("port")
            is_number = type(port) is int and 0 <= port <= 65535
            if port is not None and not is_number and port not in ("", name):
                yield f"{probe}.{handler}.port", f"{port!r} is neither a port nor {name!r}, the container port's name"


def _mounts(volumes: Sequence[Mapping[str, Any]], mounts: Sequence[Mapping[str, Any]]) -> Iterator[FieldFault]:
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


def _traffic(targets: Sequence[Mapping[str, Any]]) -> Iterator[FieldFault]:
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


def _eventing_rule_faults(resource: Resource) -> Iterator[FieldFault]:
    spec = resource.body.get("spec") or {}
    delivery = spec.get("delivery") or {}
    destinations = {"subscriber": spec.get("subscriber"), "sink": spec.get("sink")}
    for path, destination in {**destinations, "delivery.deadLetterSink": delivery.get("deadLetterSink")}.items():
        if destination is not None and (reason := _misdirected(destination)):
            yield f"spec.{path}", reason
    for index, given in enumerate(spec.get("filters") or ()):
        yield from _filter_faults(given, f"spec.filters[{index}]")
    for name in (spec.get("filter") or {}).get("attributes") or ():
        yield from _name_faults(name, "spec.filter.attributes")
    subject = spec.get("subject") or {}
    if subject.get("namespace", resource.namespace) != resource.namespace:
        yield "spec.subject.namespace", f"must be {resource.namespace}, where the SinkBinding is"
    if (subject.get("selector") or {}).get("matchExpressions"):
        yield "spec.subject.selector.matchExpressions", "is not understood here; use matchLabels"


def _misdirected(destination: Mapping[str, Any]) -> str | None:
    try:
        uri = urlsplit(destination.get("uri") or "")
    except ValueError as error:
        return f"uri: {error}"
    if destination.get("ref") is None:
        return None if uri.scheme and uri.netloc else "a ref or an absolute uri is wanted"
    return "an absolute uri may not stand beside a ref" if uri.scheme else None


def _filter_faults(given: Mapping[str, Any], path: str) -> Iterator[FieldFault]:
    dialects = [dialect for dialect in _DIALECTS if given.get(dialect)]
    if len(dialects) > 1:
        yield path, f"a filter has one dialect, not {' and '.join(dialects)}"
    for dialect in dialects:
        at, inner = f"{path}.{dialect}", given[dialect]
        if dialect == "not":
            yield from _filter_faults(inner, at)
        elif dialect in {"all", "any"}:
            for index, nested in enumerate(inner):
                yield from _filter_faults(nested, f"{at}[{index}]")
        else:
            for name, value in inner.items():
                yield from _name_faults(name, at)
                if not value:
                    yield f"{at}.{name}", "must not be empty"


def _name_faults(name: str, path: str) -> Iterator[FieldFault]:
    if not re.fullmatch("[a-z][a-z0-9]*", name):
        yield f"{path}.{name}", "is not a valid attribute name: use lower-case letters and digits, a letter first"
