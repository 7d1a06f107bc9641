"""
Brokers, Triggers and SinkBindings: routes, filters, deliveries and addresses.

Source: knative/eventing pkg/apis/duck/v1 (DeliverySpec), pkg/reconciler/broker/trigger and pkg/reconciler/subscription
(which delivery spec holds), pkg/apis/sources/v1 (SinkBinding), vendor/knative.dev/pkg/resolver (addresses).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urljoin

from kubeyaml.annotations import annotations_of
from kubeyaml.edits import set_env
from kubeyaml.errors import ManifestError
from kubeyaml.quantities import parse_period_s
from kubeyaml.resources import Resource

INGRESS_HOST: Final = "broker-ingress.knative-eventing.svc.cluster.local"
"""Where every Broker takes events, each under its own path."""

ERASES: Final = "localkn.dev/erases"
"""Annotation of an EventType: such an event erases the topic that this member of its data names."""

_GROUPS: Final = {
    "Broker": "eventing.knative.dev",
    "Trigger": "eventing.knative.dev",
    "SinkBinding": "sources.knative.dev",
}
# The cluster's config-br-defaults: the delivery spec of a Broker that has none.
_DEFAULT_DELIVERY: Final[Mapping[str, Any]] = {"retry": 10, "backoffPolicy": "exponential", "backoffDelay": "PT0.2S"}


@dataclass(frozen=True, slots=True)
class DeliverySpec:
    """Number and spacing of the attempts at a delivery; without a policy they follow each other immediately."""

    retries: int = 0
    policy: str = ""
    delay_s: float = 0.0
    timeout_s: float | None = None
    structured: bool = False

    def backoff_s(self, retries: int) -> float:
        """Return the wait after *retries* retries; exponential 1, 2, 4 …, linear 0, 1, 2 … times the delay."""
        factors = {"exponential": 2.0 ** min(retries, 40), "linear": float(retries)}
        return max(0.0, self.delay_s * factors.get(self.policy, 0.0))


@dataclass(frozen=True, slots=True)
class Trigger:
    """
    A Trigger, with the defaults of its Broker.

    `name` and `broker` are `NAMESPACE/NAME`; `subscriber` and `dead_letter_sink` are URLs as the cluster has them;
    an event must pass all `filters`.
    """

    name: str
    broker: str
    subscriber: str
    filters: Sequence[Mapping[str, Any]] = ()
    delivery: DeliverySpec = DeliverySpec()
    dead_letter_sink: str | None = None


@dataclass(frozen=True, slots=True)
class Routing:
    """
    All Brokers, `NAMESPACE/NAME` each, and all Triggers of some manifests.

    An event of a type in `erasing` erases its topic, which the given member of its data names.
    """

    brokers: Sequence[str] = ()
    triggers: Sequence[Trigger] = ()
    erasing: Mapping[str, str] = field(default_factory=dict)


def is_eventing(resource: Resource) -> bool:
    """Tell whether an object is a Broker, a Trigger or a SinkBinding."""
    return _GROUPS.get(resource.kind) == resource.api_group


def routing(resources: Sequence[Resource]) -> Routing:
    """
    Put Brokers and Triggers together.

    Args:
        resources: All objects of the manifests; `validation.faults` has found nothing wrong with them.

    Raises:
        ManifestError: A reference names no object, or one that is neither a Knative Service nor a Broker.
    """
    addresses, triggers = _Addresses(resources), []
    brokers = {f"{broker.namespace}/{broker.name}": broker for broker in _of_kind(resources, "Broker")}
    for trigger in _of_kind(resources, "Trigger"):
        spec = trigger.body["spec"]
        name = spec.get("broker") or spec["brokerRef"]["name"]
        broker = brokers.get(f"{trigger.namespace}/{name}")
        if broker is None:
            addresses.faults.append(trigger.fault("spec.broker", f"there is no Broker {name} in {trigger.namespace}"))
        else:
            triggers.append(_trigger(trigger, broker, addresses))
    if addresses.faults:
        raise ManifestError(addresses.faults)
    return Routing(tuple(brokers), triggers, dict(_erasing(resources)))


def _erasing(resources: Sequence[Resource]) -> Iterator[tuple[str, str]]:
    for resource in resources:
        member = annotations_of(resource.body).get(ERASES)
        if member and resource.kind == "EventType" and resource.api_group == _GROUPS["Broker"]:
            yield resource.body["spec"]["type"], member


def bind_sinks(resources: Sequence[Resource]) -> None:
    """
    Carry out SinkBindings: set `K_SINK` and `K_CE_OVERRIDES` in the Knative Services that are their subjects.

    Raises:
        ManifestError: A sink or a subject is not among *resources*.
    """
    addresses = _Addresses(resources)
    for binding in _of_kind(resources, "SinkBinding"):
        subject, overrides = binding.body["spec"]["subject"], binding.body["spec"].get("ceOverrides")
        sink = addresses.find(binding, "spec.sink", binding.body["spec"]["sink"])
        bound = [resource for resource in resources if _is_subject(resource, subject, namespace=binding.namespace)]
        if not bound and subject.get("name") is not None:
            addresses.faults.append(binding.fault("spec.subject", f"there is no {subject['kind']} {subject['name']}"))
        for service in bound:
            extensions = json.dumps(overrides, separators=(",", ":")) if overrides else ""
            set_env(service.body, [f"K_SINK={sink}", f"K_CE_OVERRIDES={extensions}"])
    if addresses.faults:
        raise ManifestError(addresses.faults)


class _Addresses:
    """Turns destinations into URLs of the cluster, and collects those that do not exist."""

    def __init__(self, resources: Sequence[Resource]) -> None:
        self.faults: list[str] = []
        self._urls = {
            (r.api_group, r.kind, r.namespace, r.name): f"http://{r.name}.{r.namespace}.svc.cluster.local"
            if r.is_service
            else f"http://{INGRESS_HOST}/{r.namespace}/{r.name}"
            for r in resources
            if r.is_service or (is_eventing(r) and r.kind == "Broker")
        }

    def find(self, owner: Resource, path: str, destination: Mapping[str, Any]) -> str:
        """Return the URL of a `ref`, a `uri`, or a `uri` relative to a `ref`; empty if the destination does not exist."""
        ref, uri = destination.get("ref"), destination.get("uri") or ""
        if ref is None:
            return str(uri)
        namespace, group = ref.get("namespace") or owner.namespace, ref["apiVersion"].rpartition("/")[0]
        url = self._urls.get((group, ref["kind"], namespace, ref["name"]))
        if url is None:
            missing = f"there is no {group or 'core'} {ref['kind']} {ref['name']} in {namespace}"
            self.faults.append(
                owner.fault(f"{path}.ref", f"{missing}; Knative Services and Brokers of the manifests can be reached")
            )
            return ""
        return urljoin(f"{url}/", uri) if uri else url


def _of_kind(resources: Sequence[Resource], kind: str) -> Iterator[Resource]:
    return (resource for resource in resources if resource.kind == kind and is_eventing(resource))


def _trigger(trigger: Resource, broker: Resource, addresses: _Addresses) -> Trigger:
    spec = trigger.body["spec"]
    owners = [(trigger, spec.get("delivery")), (broker, (broker.body.get("spec") or {}).get("delivery"))]
    # The Trigger's spec replaces the Broker's spec as a whole, except for the dead-letter sink.
    delivery: Mapping[str, Any] = next((given for _, given in owners if given is not None), _DEFAULT_DELIVERY)
    sinks = [(owner, given["deadLetterSink"]) for owner, given in owners if given and given.get("deadLetterSink")]
    timeout = delivery.get("timeout")
    return Trigger(
        name=f"{trigger.namespace}/{trigger.name}",
        broker=f"{broker.namespace}/{broker.name}",
        subscriber=addresses.find(trigger, "spec.subscriber", spec["subscriber"]),
        filters=spec.get("filters") or _legacy(spec.get("filter") or {}),
        delivery=DeliverySpec(
            retries=delivery.get("retry") or 0,
            # Without both settings, retries follow immediately.
            policy=delivery.get("backoffPolicy") or "",
            delay_s=parse_period_s(delivery.get("backoffDelay") or "P0"),
            timeout_s=parse_period_s(timeout) if timeout else None,
            structured=delivery.get("format") == "json",
        ),
        dead_letter_sink=addresses.find(sinks[0][0], "spec.delivery.deadLetterSink", sinks[0][1]) if sinks else None,
    )


def _legacy(given: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """`filter.attributes` as a filter: exact, but for the empty text, which any value fits."""
    attributes = given.get("attributes") or {}
    return [{"exact" if value else "present": {name: value}} for name, value in attributes.items()]


def _is_subject(resource: Resource, subject: Mapping[str, Any], *, namespace: str) -> bool:
    if not resource.is_service or subject["kind"] != "Service" or resource.namespace != namespace:
        return False
    if subject.get("name") is not None:
        return resource.name == str(subject["name"])
    labels = resource.body["metadata"].get("labels") or {}
    return ((subject["selector"] or {}).get("matchLabels") or {}).items() <= labels.items()
