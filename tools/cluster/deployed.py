"""Checks of the pipeline on the cluster: Secrets, model, store, Services, events, certificates, spread over nodes."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tools.cluster.findings import Finding, fault, note, ok
from tools.cluster.installed import SERVING
from tools.cluster.reader import Cluster, KubeObject, condition, find, is_ready
from tools.cluster.wanted import WantedObjects, hop_namespace
from tools.rollout.conductor import CANDIDATE

SERVICES = "services.serving.knative.dev"
_PLACEHOLDER: Final = "example.com"
_LEAST_VALID = timedelta(days=14)  # cert-manager renews 30 days before the end
_OF_MODEL: Final = "model"  # the ConfigMap that seed-demo writes
_NO_ADDRESS: Final = "address not set"  # of a Trigger whose Service was not ready when Eventing looked
_SERVICE_LABEL: Final = "serving.knative.dev/service"
# Knative's own object for a certificate; cert-manager's has another group and the same short name.
_KNATIVE_CERTIFICATES: Final = "certificates.networking.internal.knative.dev"
_CERTIFICATES: Final = "certificates.cert-manager.io"


def check_values(_: Cluster, wanted: WantedObjects) -> Iterator[Finding]:
    """Check that an overlay's placeholders were replaced, and that hops lead to the own namespace."""
    faults = [*_placeholders(wanted), *_strays(wanted)]
    yield from faults or [ok(f"{wanted.folder} has no placeholder, and its hops stay in {wanted.namespace}")]


def _placeholders(wanted: WantedObjects) -> Iterator[Finding]:
    values = [*((name, "image", image) for name, image in wanted.images().items()), *wanted.variables()]
    values += [(each.name, "DomainMapping", each.name) for each in wanted.of_kind("DomainMapping")]
    for service, name, value in values:
        if _PLACEHOLDER in value:
            yield fault(f"{service}: {name} is the placeholder {value}", f"set it in {wanted.folder}")


def _strays(wanted: WantedObjects) -> Iterator[Finding]:
    own = {each.name for each in wanted.services}
    for service, name, value in wanted.variables():
        hop = hop_namespace(value)
        if hop and hop[0] in own and hop[1] != wanted.namespace:
            yield fault(
                f"{service}: {name} leads to the namespace {hop[1]}, and the overlay applies to {wanted.namespace}",
                f"set it in {wanted.folder}",
            )


def check_secrets(cluster: Cluster, wanted: WantedObjects) -> Iterator[Finding]:
    """Check that each Secret and ConfigMap that a Service reads exists, with its entries."""
    for kind, name, key, service in sorted({(k, n, e or "", s) for s, k, n, e in wanted.references()}):
        if (kind, name) == ("ConfigMap", _OF_MODEL):
            continue  # `check_model` reports it
        found = find(cluster, f"{kind.lower()}s", name, wanted.namespace)
        what = f"{kind} {name}"
        if found is None:
            todo = f"create it in {wanted.namespace}; docs/how-to/run-on-a-cluster.md has the command"
            yield fault(f"{service} needs the {what}, which does not exist", todo)
        elif key and key not in (found.get("data") or {}):
            yield fault(f"{service} needs the entry {key} of the {what}, which has none", "add that entry")
        else:
            yield ok(f"{what}{f' with {key}' if key else ''} exists")


def check_model(cluster: Cluster, wanted: WantedObjects) -> Iterator[Finding]:
    """Check that the model of rank-items is on the cluster, unless it is part of the image."""
    if any((kind, name) == ("ConfigMap", _OF_MODEL) for _, kind, name, _ in wanted.references()):
        found = find(cluster, "configmaps", _OF_MODEL, wanted.namespace)
        if found and (found.get("binaryData") or found.get("data")):
            yield ok(f"the ConfigMap {_OF_MODEL} holds a model")
        elif find(cluster, "deployments.apps", "seed-demo", wanted.namespace):
            yield fault("seed-demo has not written the model yet", "look at kubectl logs deployment/seed-demo")
        else:
            yield note("the model does not exist yet", "seed-demo of the overlay writes it")
    for name in sorted(wanted.claims()):
        claim = find(cluster, "persistentvolumeclaims", name, wanted.namespace)
        phase = (claim or {}).get("status", {}).get("phase", "absent")
        if phase == "Bound":
            yield ok(f"the PersistentVolumeClaim {name} is bound")
        else:
            todo = "create it, and copy the model there before rank-items starts"
            yield fault(f"the PersistentVolumeClaim {name} is {phase.lower()}", todo)


def check_store(cluster: Cluster, wanted: WantedObjects) -> Iterator[Finding]:
    """Check that the feature store inside the cluster has a ready pod. extract-features reports an external one."""
    inside = [each for each in wanted.of_kind("Service") if not each.api_group and each.name == "feature-store"]
    for store in inside:
        slices = cluster.all("endpointslices.discovery.k8s.io", wanted.namespace)
        own = [each for each in slices if each["metadata"]["labels"].get("kubernetes.io/service-name") == store.name]
        ends = [end for each in own for end in each.get("endpoints") or ()]
        if any((end.get("conditions") or {}).get("ready") is not False for end in ends):
            yield ok("the feature store has a ready pod")
        elif own:
            yield fault("the feature store has no ready pod", "look at kubectl describe pods of feature-store")
        else:
            yield note("the feature store does not exist yet", f"run {wanted.apply_command()}")


def check_services(cluster: Cluster, wanted: WantedObjects) -> Iterator[Finding]:
    """Check that each Service is ready, and give the reason of its pods if it is not."""
    there = {each["metadata"]["name"]: each for each in cluster.all(SERVICES, wanted.namespace)}
    absent = [each.name for each in wanted.services if each.name not in there]
    if absent:
        yield note(f"{', '.join(absent)}: not deployed in {wanted.namespace}", f"run {wanted.apply_command()}")
    for service in wanted.services:
        found = there.get(service.name)
        if found is None:
            continue
        if is_ready(found):
            yield ok(f"{service.name} is ready: {found['status'].get('latestReadyRevisionName')}")
        else:
            reasons = [condition(found).get("message") or "no condition yet", *_waiting(cluster, wanted, service.name)]
            yield fault(f"{service.name} is not ready: {'; '.join(reasons)}", _where_to_look(found, wanted))
        tags = {target.get("tag") for target in (found.get("status") or {}).get("traffic") or ()}
        if CANDIDATE in tags:
            yield note(
                f"{service.name} has the tag {CANDIDATE}: a rollout is running or was killed",
                "if it was killed, the next ./run.sh rollout restores the Service first",
            )


def _where_to_look(service: KubeObject, wanted: WantedObjects) -> str:
    if condition(service).get("reason", "").startswith("Certificate"):
        return f"look at kubectl describe {_KNATIVE_CERTIFICATES} --namespace {wanted.namespace}"
    selector = f"--selector {_SERVICE_LABEL}={service['metadata']['name']}"
    return f"look at kubectl logs --namespace {wanted.namespace} {selector} --container user-container"


def _unscheduled(pod: KubeObject) -> Iterator[KubeObject]:
    """Yield the condition by which *pod* fits no node."""
    for each in (pod.get("status") or {}).get("conditions") or ():
        if each["type"] == "PodScheduled" and each["status"] == "False" and each.get("message"):
            yield each


def _waiting(cluster: Cluster, wanted: WantedObjects, service: str) -> Iterator[str]:
    """Yield why containers of *service* do not run, each reason once."""
    pods = [each for each in cluster.all("pods", wanted.namespace) if _labels(each).get(_SERVICE_LABEL) == service]
    reasons = {each["message"]: None for pod in pods for each in _unscheduled(pod)}
    for status in (each for pod in pods for each in (pod.get("status") or {}).get("containerStatuses") or ()):
        state: dict[str, Any] = status.get("state") or {}
        # A container that runs again, but is not ready, may end as it did before.
        last = {} if status.get("ready") else (status.get("lastState") or {}).get("terminated")
        ended = state.get("waiting") or state.get("terminated") or last or {}
        if ended.get("reason"):
            reasons[f"{status['name']}: {ended['reason']} {ended.get('message', '')}".strip()] = None
    yield from reasons


def check_events(cluster: Cluster, wanted: WantedObjects) -> Iterator[Finding]:
    """Check that the Brokers and Triggers are ready."""
    for kind in ("Broker", "Trigger"):
        there = {each["metadata"]["name"]: each for each in cluster.all(_plural(kind), wanted.namespace)}
        deployed = [there[each.name] for each in wanted.of_kind(kind) if each.name in there]
        unready = [each for each in deployed if not is_ready(each)]
        for each in unready:
            name, reason = each["metadata"]["name"], condition(each).get("message") or "no condition yet"
            todo = f"look at kubectl describe {kind.lower()} {name} --namespace {wanted.namespace}"
            if _NO_ADDRESS in reason:
                # Eventing looks again after pauses that double, up to a quarter of an hour. A change makes it look now.
                change = f"kubectl annotate trigger {name} --namespace {wanted.namespace} --overwrite"
                todo = f'when its Service is ready, run {change} checked="$(date)"'
            yield fault(f"{kind} {name} is not ready: {reason}", todo)
        if deployed and not unready:
            yield ok(f"{len(deployed)} {kind}s are ready")


def _plural(kind: str) -> str:
    return f"{kind.lower()}s.eventing.knative.dev"


def check_certificates(cluster: Cluster, wanted: WantedObjects) -> Iterator[Finding]:
    """Check that the public names work and that no certificate is about to expire."""
    for mapping in cluster.all("domainmappings.serving.knative.dev", wanted.namespace):
        if not is_ready(mapping):
            reason = condition(mapping).get("message") or "no condition yet"
            name = mapping["metadata"]["name"]
            todo = f"look at kubectl describe domainmapping {name} --namespace {wanted.namespace}"
            yield fault(f"DomainMapping {name} is not ready: {reason}", todo)
    for certificate in cluster.all(_KNATIVE_CERTIFICATES, wanted.namespace):
        if not (certificate.get("status") or {}).get("conditions"):
            # Serving's controller looks only at its start whether certificates are wanted.
            yield fault(
                f"Knative has not ordered the certificate {certificate['metadata']['name']}",
                f"run kubectl rollout restart deployment controller --namespace {SERVING}",
            )
    for certificate in cluster.all(_CERTIFICATES, wanted.namespace):
        name, ends = certificate["metadata"]["name"], (certificate.get("status") or {}).get("notAfter")
        if not is_ready(certificate):
            reason = condition(certificate).get("message") or "no condition yet"
            todo = f"look at kubectl describe {_CERTIFICATES} {name} --namespace {wanted.namespace}"
            yield fault(f"certificate {name} is not ready: {reason}", todo)
        elif ends and datetime.fromisoformat(ends) < datetime.now(UTC) + _LEAST_VALID:
            yield fault(f"certificate {name} expires at {ends}", "cert-manager should have renewed it; read its logs")
        else:
            yield ok(f"certificate {name} is valid until {ends}")


def check_spread(cluster: Cluster, wanted: WantedObjects) -> Iterator[Finding]:
    """Check that the pods of a function that has at least two run on different nodes."""
    nodes = [each for each in cluster.all("nodes") if not each["spec"].get("unschedulable")]
    for service in wanted.lasting():
        pods = [each for each in cluster.all("pods", wanted.namespace) if _labels(each).get(_SERVICE_LABEL) == service]
        placed = [each["spec"].get("nodeName") for each in pods if is_ready(each)]
        if len(placed) < 2:
            continue
        if len(set(placed)) > 1:
            yield ok(f"the {len(placed)} pods of {service} run on {len(set(placed))} nodes")
        elif len(nodes) > 1:
            yield fault(
                f"all pods of {service} run on {placed[0]}",
                "keep default-affinity-type in config-deployment at prefer-spread-revision-over-nodes, then delete one",
            )
        else:
            yield note(f"all pods of {service} run on the only node {placed[0]}", "a second node would survive its end")


def _labels(body: KubeObject) -> dict[str, str]:
    return dict(body["metadata"].get("labels") or {})
