"""Validation of Brokers, Triggers and SinkBindings, and the routing they describe."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from kubeyaml.edits import container
from kubeyaml.errors import ManifestError
from kubeyaml.eventing import DeliverySpec, Routing, Trigger, bind_sinks, routing
from kubeyaml.resources import Resource
from kubeyaml.validation import faults

BROKER, TRIGGER, BINDING, SINK, FRONT = yaml.safe_load_all("""
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: default, annotations: {eventing.knative.dev/broker.class: Kafka}}
spec:
  config: {apiVersion: v1, kind: ConfigMap, name: kafka, namespace: knative-eventing}
  delivery:
    retry: 3
    backoffPolicy: exponential
    backoffDelay: PT0.2S
    timeout: PT10S
    deadLetterSink: {ref: {apiVersion: serving.knative.dev/v1, kind: Service, name: sink}}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: all, creationTimestamp: "2026-01-01T00:00:00Z"}
spec:
  broker: default
  filters: [{exact: {type: a}}, {any: [{prefix: {source: /x}}, {not: {suffix: {subject: y}}}]}]
  subscriber: {ref: {apiVersion: serving.knative.dev/v1, kind: Service, name: front}, uri: /in}
status: {}
---
apiVersion: sources.knative.dev/v1
kind: SinkBinding
metadata: {name: bound}
spec:
  subject: {apiVersion: serving.knative.dev/v1, kind: Service, name: front}
  sink: {ref: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: default}}
  ceOverrides: {extensions: {zone: a}}
---
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: sink, labels: {app: x}}
spec: {template: {spec: {containers: [{image: a, env: [{name: A, value: "1"}]}]}}}
---
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: front}
spec: {template: {spec: {containers: [{image: a}]}}}
""")

Change = Callable[[dict[str, Any]], Any]


def resources(*changes: Change) -> list[Resource]:
    """Return the five objects after the given changes."""
    bodies = {b["kind"] + b["metadata"]["name"]: copy.deepcopy(b) for b in (BROKER, TRIGGER, BINDING, SINK, FRONT)}
    for change in changes:
        change(bodies)
    return [Resource(body, "x.yaml") for body in bodies.values()]


def test_valid_objects_have_no_faults() -> None:
    """The validation accepts the sample, and ignores an object of a kind that it does not know."""
    assert [fault for resource in resources() for fault in faults(resource)] == []
    assert faults(Resource({"apiVersion": "v1", "kind": "Broker", "metadata": {}, "nonsense": 1}, "x")) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b["Brokerdefault"]["spec"]["delivery"].update(retry=-1), "spec.delivery.retry: -1 is outside 0.."),
        (lambda b: b["Brokerdefault"]["spec"]["delivery"].update(backoffDelay="2s"), "'2s' is not a valid period"),
        (lambda b: b["Brokerdefault"]["spec"]["delivery"].update(timeout="PT0S"), "spec.delivery.timeout: 'PT0S' is outside 0.1.."),
        (lambda b: b["Brokerdefault"]["spec"]["delivery"].update(backoffPolicy="constant"), "is none of linear, exponential"),
        (lambda b: b["Brokerdefault"]["spec"]["delivery"].update(retryAfterMax="PT9S"), "needs the feature delivery-retryafter"),
        (lambda b: b["Brokerdefault"]["spec"]["delivery"].update(deadLetterSink={"uri": "/x"}), "a ref or an absolute uri"),
        (lambda b: b["Triggerall"]["spec"].update(broker=None), "spec: exactly one of broker, brokerRef is wanted"),
        (lambda b: b["Triggerall"]["spec"].pop("subscriber"), "spec.subscriber: is missing"),
        (lambda b: b["Triggerall"]["spec"]["subscriber"].update(uri="http://x"), "an absolute uri may not stand beside a ref"),
        (lambda b: b["Triggerall"]["spec"].update(filters=[{"cesql": "a = 'b'"}]), "cesql: is not understood here; use exact"),
        (lambda b: b["Triggerall"]["spec"].update(filters=[{"all": [{"not": {"cesql": "x"}}]}]), "[0].not.cesql: is not understood"),
        (lambda b: b["Triggerall"]["spec"].update(filters=[{"exact": {"Type": "a"}}]), "filters[0].exact.Type: is not a valid attribute name"),
        (lambda b: b["Triggerall"]["spec"].update(filters=[{"exact": {"type": ""}}]), "exact.type: must not be empty"),
        (lambda b: b["Triggerall"]["spec"].update(filters=[{"exact": {"a": "b"}, "prefix": {"a": "b"}}]), "has one dialect, not exact and prefix"),
        (lambda b: b["Triggerall"]["spec"].update(filters=[{"any": [{"not": {"exact": {"1": "b"}}}]}]), "any[0].not.exact.1: is no"),
        (lambda b: b["Triggerall"]["spec"].update(filter={"attributes": {"x-y": "z"}}), "spec.filter.attributes.x-y: is no"),
        (lambda b: b["SinkBindingbound"]["spec"]["subject"].update(namespace="other"), "must be default, where the SinkBinding is"),
        (lambda b: b["SinkBindingbound"]["spec"]["subject"].update(selector={}), "exactly one of name, selector"),
        (
            lambda b: b["SinkBindingbound"]["spec"].update(
                subject={"apiVersion": "v1", "kind": "X", "selector": {"matchExpressions": [1]}}
            ),
            "matchExpressions: is not understood here",
        ),
    ],
)  # fmt: skip
def test_objects_that_the_webhook_refuses_are_refused(change: Change, message: str) -> None:
    """A fault names the object, the path and the reason; CESQL and disabled features are named too."""
    (fault,) = [fault for resource in resources(change) for fault in faults(resource)]
    assert message in fault
    assert fault.startswith("x.yaml: ")


def test_a_trigger_is_resolved_with_its_brokers_defaults() -> None:
    """References become cluster addresses; the delivery policy and the dead-letter sink come from the Broker."""
    assert routing(resources()) == Routing(
        ("default/default",),
        [
            Trigger(
                name="default/all",
                broker="default/default",
                subscriber="http://front.default.svc.cluster.local/in",
                filters=TRIGGER["spec"]["filters"],
                delivery=DeliverySpec(retries=3, policy="exponential", delay_s=0.2, timeout_s=10),
                dead_letter_sink="http://sink.default.svc.cluster.local",
            )
        ],
    )


def test_a_trigger_overrides_its_brokers_delivery() -> None:
    """The Trigger's delivery policy replaces the Broker's, except for a dead-letter sink that it does not name."""
    own = {"retry": 1, "backoffPolicy": "linear", "backoffDelay": "PT1S", "format": "json"}
    (trigger,) = routing(resources(lambda b: b["Triggerall"]["spec"].update(delivery=own))).triggers
    assert trigger.delivery == DeliverySpec(retries=1, policy="linear", delay_s=1, structured=True)
    assert trigger.dead_letter_sink == "http://sink.default.svc.cluster.local"
    own["deadLetterSink"] = {"uri": "http://elsewhere.example/x"}
    (trigger,) = routing(resources(lambda b: b["Triggerall"]["spec"].update(delivery=own))).triggers
    assert trigger.dead_letter_sink == "http://elsewhere.example/x"


def test_the_cluster_defaults_apply_without_a_delivery_spec() -> None:
    """
    The default is ten retries with exponential back-off from 0.2 s, also with `brokerRef` and a Broker subscriber.
    """

    def change(bodies: dict[str, Any]) -> None:
        del bodies["Brokerdefault"]["spec"]
        reference = {"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "name": "default"}
        bodies["Triggerall"]["spec"] = {"brokerRef": reference, "subscriber": {"ref": reference}}

    (trigger,) = routing(resources(change)).triggers
    assert (trigger.delivery, trigger.filters) == (DeliverySpec(retries=10, policy="exponential", delay_s=0.2), [])
    assert trigger.dead_letter_sink is None
    assert trigger.subscriber == "http://broker-ingress.knative-eventing.svc.cluster.local/default/default"


def test_the_older_filter_field_is_converted() -> None:
    """`filter.attributes` becomes an exact filter, and an empty value matches any value."""
    old = {"attributes": {"type": "a", "subject": ""}}
    spec = {"broker": "default", "filter": old, "subscriber": {"uri": "http://x.example"}}
    (trigger,) = routing(resources(lambda b: b["Triggerall"].update(spec=spec))).triggers
    assert trigger.filters == [{"exact": {"type": "a"}}, {"present": {"subject": ""}}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b["Triggerall"]["spec"].update(broker="gone"), "spec.broker: there is no Broker gone in default"),
        (
            lambda b: b["Triggerall"]["spec"]["subscriber"]["ref"].update(name="gone"),
            "spec.subscriber.ref: there is no serving.knative.dev Service gone in default",
        ),
        (
            lambda b: b["Brokerdefault"]["spec"]["delivery"]["deadLetterSink"].update(
                ref={"apiVersion": "v1", "kind": "Service", "name": "x", "namespace": "n"}
            ),
            "there is no core Service x in n; Knative Services and Brokers of the manifests can be reached",
        ),
    ],
)
def test_a_reference_to_a_missing_object_is_refused(change: Change, message: str) -> None:
    """The reference is refused before anything starts."""
    with pytest.raises(ManifestError, match=".") as caught:
        routing(resources(change))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("delivery", "waits"),
    [
        (DeliverySpec(policy="exponential", delay_s=0.2), [0.2, 0.4, 0.8, 1.6]),
        (DeliverySpec(policy="linear", delay_s=0.2), [0.0, 0.2, 0.4, 0.6]),
        (DeliverySpec(delay_s=9.0), [0.0, 0.0, 0.0, 0.0]),
    ],
)
def test_back_off_follows_the_policy(delivery: DeliverySpec, waits: list[float]) -> None:
    """Exponential back-off doubles, linear back-off starts with no wait, and no policy means no wait."""
    assert [delivery.backoff_s(retries) for retries in range(4)] == pytest.approx(waits)


def test_a_binding_sets_the_sink_of_its_subject() -> None:
    """Only the subject gets the address of the sink and the extensions for its events."""
    bound = resources()
    bind_sinks(bound)
    services = {resource.name: container(resource.body) for resource in bound if resource.is_service}
    assert services["front"]["env"] == [
        {"name": "K_SINK", "value": "http://broker-ingress.knative-eventing.svc.cluster.local/default/default"},
        {"name": "K_CE_OVERRIDES", "value": '{"extensions":{"zone":"a"}}'},
    ]
    assert [variable["name"] for variable in services["sink"]["env"]] == ["A"]


def test_a_binding_can_select_by_labels() -> None:
    """A selector binds every Service with all of its labels, and may match none."""

    def change(bodies: dict[str, Any]) -> None:
        selector = {"matchLabels": {"app": "x"}}
        spec = {"subject": {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "selector": selector}}
        bodies["SinkBindingbound"]["spec"] = spec | {"sink": {"uri": "http://s.example"}}

    bound = resources(change)
    bind_sinks(bound)
    services = {resource.name: container(resource.body) for resource in bound if resource.is_service}
    assert [v.get("value") for v in services["sink"]["env"]] == ["1", "http://s.example", ""]
    assert "env" not in services["front"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b["SinkBindingbound"]["spec"]["subject"].update(name="gone"), "spec.subject: there is no Service gone"),
        (lambda b: b["SinkBindingbound"]["spec"]["subject"].update(kind="Deployment"), "there is no Deployment front"),
        (lambda b: b["SinkBindingbound"]["spec"]["sink"]["ref"].update(name="gone"), "spec.sink.ref: there is no"),
    ],
)  # fmt: skip
def test_a_binding_to_a_missing_object_is_refused(change: Change, message: str) -> None:
    """Both the sink and the subject of a binding must exist."""
    with pytest.raises(ManifestError, match=".") as caught:
        bind_sinks(resources(change))
    assert message in str(caught.value)
