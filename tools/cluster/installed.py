"""Checks of the cluster itself: versions, control plane, gateway, feature flags, metrics and certificates."""

import re
from collections.abc import Iterator
from typing import Final

from tools.cluster.findings import Finding, fault, note, ok
from tools.cluster.reader import Cluster, KubeObject, condition, data_of, find, is_ready
from tools.cluster.wanted import WantedObjects

SERVING, EVENTING = "knative-serving", "knative-eventing"
_DEPLOYMENTS: Final = "deployments.apps"
LEAST_SERVING, LEAST_EVENTING, METRICS_SINCE = (1, 16), (1, 16), (1, 19)
# The kind, the namespace and the name of the gateway of each ingress class.
GATEWAYS: Final = {
    "kourier.ingress.networking.knative.dev": (_DEPLOYMENTS, "kourier-system", "3scale-kourier-gateway"),
    "istio.ingress.networking.knative.dev": (_DEPLOYMENTS, "istio-system", "istio-ingressgateway"),
    "contour.ingress.networking.knative.dev": ("daemonsets.apps", "contour-external", "envoy"),
}
_COMPONENTS: Final = {"istio-system": "components/gateway-istio", "contour-external": "components/gateway-contour"}
_DEFAULT_CLASS: Final = "istio.ingress.networking.knative.dev"  # of Serving, if config-network names none
_DEFAULT_DOMAIN: Final = "svc.cluster.local"
_POD_MONITORS, _PROMETHEUSES = "podmonitors.monitoring.coreos.com", "prometheuses.monitoring.coreos.com"
_ISSUERS, _CLAIMS = "clusterissuers.cert-manager.io", "clusterdomainclaims.networking.internal.knative.dev"


def check_versions(cluster: Cluster, wanted: WantedObjects) -> Iterator[Finding]:
    """Compare the versions of Knative with those that the manifests need."""
    yield ok(f"Kubernetes {cluster.version()}")
    needed = [("Serving", SERVING, LEAST_SERVING)]
    if wanted.of_kind("Broker"):
        needed.append(("Eventing", EVENTING, LEAST_EVENTING))
    for name, namespace, least in needed:
        found = find(cluster, "namespaces", namespace)
        if found is None:
            yield fault(f"Knative {name} is not installed", "install it as https://knative.dev/docs/install/ describes")
            continue
        text = found["metadata"].get("labels", {}).get("app.kubernetes.io/version", "")
        version = _version(text)
        if version is None:
            yield note(f"Knative {name} does not say its version", f"the manifests need {_text(least)}")
        elif version < least:
            yield fault(f"Knative {name} is {text}", f"the manifests need {_text(least)} or newer")
        else:
            yield ok(f"Knative {name} {text}")


def _version(text: str) -> tuple[int, int] | None:
    match = re.match(r"v?(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


def _text(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def check_control_plane(cluster: Cluster, wanted: WantedObjects) -> Iterator[Finding]:
    """Check that the Deployments of Serving and Eventing have their pods."""
    for namespace in (SERVING, *([EVENTING] if wanted.of_kind("Broker") else [])):
        deployments = cluster.all(_DEPLOYMENTS, namespace)
        down = [each["metadata"]["name"] for each in deployments if not _is_up(each)]
        if down:
            todo = f"look at kubectl get pods --namespace {namespace}"
            yield fault(f"{namespace}: no pod of {', '.join(sorted(down))} is available", todo)
        elif deployments:
            yield ok(f"{namespace}: {len(deployments)} Deployments are available")


def _is_up(workload: KubeObject) -> bool:
    """Tell whether a Deployment or DaemonSet has an available pod, or wants none."""
    wanted, status = workload["spec"].get("replicas", 1), workload.get("status") or {}
    return not wanted or bool(status.get("availableReplicas") or status.get("numberAvailable"))


def check_gateway(cluster: Cluster, wanted: WantedObjects) -> Iterator[Finding]:
    """Check that the gateway of the ingress class runs, that pods admit it, and that it survives a node."""
    network = data_of(cluster, "config-network", SERVING)
    name = network.get("ingress-class") or network.get("ingress.class") or _DEFAULT_CLASS
    if name not in GATEWAYS:
        yield note(f"the ingress class is {name}", "check that its gateway runs and that the NetworkPolicies admit it")
        return
    kind, namespace, workload = GATEWAYS[name]
    gateway = find(cluster, kind, workload, namespace)
    if gateway is None or not _is_up(gateway):
        yield fault(
            f"the ingress class is {name}, and {workload} in {namespace} is not available",
            "install that network layer, or set ingress-class in config-network to the installed one",
        )
        return
    yield ok(f"the gateway {namespace}/{workload} is available")
    yield from _admission(wanted, namespace)
    # A DaemonSet has a pod on each node.
    if kind == _DEPLOYMENTS and wanted.lasting() and gateway["spec"].get("replicas", 1) < 2:
        todo = _two_gateways(cluster, namespace, workload)
        yield fault(f"{namespace}/{workload} has one pod, whose end interrupts every call", todo)


def _admission(wanted: WantedObjects, namespace: str) -> Iterator[Finding]:
    admitted = wanted.admitted_namespaces()
    if admitted and namespace not in admitted:
        component = _COMPONENTS.get(namespace)
        todo = f"add {component} to" if component else "remove the component of the other gateway from"
        yield fault(f"the NetworkPolicies admit no pod of {namespace}", f"{todo} {wanted.folder}")


def _two_gateways(cluster: Cluster, namespace: str, workload: str) -> str:
    """Return the command that asks for two pods: of the autoscaler, if the gateway has one, which else scales in."""
    if find(cluster, "horizontalpodautoscalers.autoscaling", workload, namespace):
        patch = """--type merge --patch '{"spec":{"minReplicas":2}}'"""
        return f"run kubectl patch hpa {workload} --namespace {namespace} {patch}"
    return f"run kubectl scale deployment {workload} --namespace {namespace} --replicas 2"


def check_domain(cluster: Cluster, wanted: WantedObjects) -> Iterator[Finding]:
    """Check that the public name of recommend belongs to this cluster."""
    domains = [each for each in data_of(cluster, "config-domain", SERVING) if not each.startswith("_")]
    mapped = [each.name for each in wanted.of_kind("DomainMapping")]
    if not mapped and all(each == _DEFAULT_DOMAIN for each in domains):
        yield note(
            "recommend has a name only inside the cluster", "set a domain in config-domain to call it from outside"
        )
    for name in mapped:
        claim = find(cluster, _CLAIMS, name)
        automatic = data_of(cluster, "config-network", SERVING).get("autocreate-cluster-domain-claims") == "true"
        if claim is None and not automatic:
            yield fault(f"no ClusterDomainClaim {name}", "apply knative/cluster/domain-claim.yaml with that name")
        elif claim is not None and claim["spec"].get("namespace") != wanted.namespace:
            yield fault(
                f"the name {name} belongs to the namespace {claim['spec'].get('namespace')}",
                "choose another name, or change the ClusterDomainClaim",
            )
        else:
            yield ok(f"the name {name} belongs to the namespace {wanted.namespace}")


def check_flags(cluster: Cluster, wanted: WantedObjects) -> Iterator[Finding]:
    """Check the feature flags of Serving that the overlay needs."""
    features = data_of(cluster, "config-features", SERVING)
    for flag, service in sorted(wanted.flags().items()):
        if features.get(flag, "").lower() in {"enabled", "allowed"}:
            yield ok(f"the flag {flag} is enabled")
        else:
            patch = f"""'{{"data":{{"{flag}":"enabled"}}}}'"""
            yield fault(
                f"{service} needs the flag {flag}",
                f"run kubectl patch configmap config-features --namespace {SERVING} --type merge --patch {patch}",
            )


def check_metrics(cluster: Cluster, wanted: WantedObjects) -> Iterator[Finding]:
    """Check that Prometheus collects the metrics of the pipeline and of Knative."""
    if not cluster.knows(_POD_MONITORS):
        yield note("the Prometheus operator is not installed", "without it, knative/monitoring cannot be applied")
        return
    yield from _exposure(cluster)
    monitors = cluster.all(_POD_MONITORS, wanted.namespace)
    if not any(each["metadata"]["name"].startswith("recsys-") for each in monitors):
        todo = f"run kubectl apply --namespace {wanted.namespace} -k knative/monitoring"
        yield fault(f"no PodMonitor of the pipeline in {wanted.namespace}", todo)
        return
    readers = [each for each in cluster.all(_PROMETHEUSES) if _reads(cluster, each, monitors, wanted.namespace)]
    if readers:
        yield ok(f"Prometheus {readers[0]['metadata']['name']} selects the PodMonitors of {wanted.namespace}")
    else:
        todo = "compare its podMonitorSelector and podMonitorNamespaceSelector with their labels"
        yield fault(f"no Prometheus selects the PodMonitors of {wanted.namespace}", todo)


def _exposure(cluster: Cluster) -> Iterator[Finding]:
    """Yield a fault for each setting that keeps Knative's own metrics from Prometheus."""
    observability = data_of(cluster, "config-observability", SERVING)
    todo = f"apply knative/cluster/config-observability.yaml as its first line says (Serving {_text(METRICS_SINCE)})"
    for key in ("metrics-protocol", "request-metrics-protocol"):
        if observability.get(key) != "prometheus":
            yield fault(f"Knative does not expose metrics: {key} is {observability.get(key, 'not set')}", todo)


def _reads(cluster: Cluster, prometheus: KubeObject, monitors: list[KubeObject], namespace: str) -> bool:
    spec = prometheus["spec"]
    spaces = spec.get("podMonitorNamespaceSelector")
    if spaces is None:  # selects only its own namespace
        in_reach = prometheus["metadata"].get("namespace") == namespace
    else:
        in_reach = _matches(spaces, find(cluster, "namespaces", namespace))
    chosen = spec.get("podMonitorSelector")
    return in_reach and chosen is not None and all(_matches(chosen, each) for each in monitors)


def _matches(selector: KubeObject, body: KubeObject | None) -> bool:
    """Tell whether a label selector matches. Only the operator In and matchLabels choose; others match anything."""
    labels = ((body or {}).get("metadata") or {}).get("labels") or {}
    expressions = [each for each in selector.get("matchExpressions") or () if each["operator"] == "In"]
    return (selector.get("matchLabels") or {}).items() <= labels.items() and all(
        labels.get(each["key"]) in each["values"] for each in expressions
    )


def check_issuer(cluster: Cluster, wanted: WantedObjects) -> Iterator[Finding]:
    """Check that certificates for the public name are issued."""
    if not wanted.of_kind("DomainMapping"):
        return
    network = data_of(cluster, "config-network", SERVING)
    if network.get("external-domain-tls", "").lower() != "enabled":
        yield fault("external-domain-tls is not enabled", "apply knative/cluster/config-network.yaml")
        return
    named = re.search(
        r"^name: *(\S+)", data_of(cluster, "config-certmanager", SERVING).get("issuerRef", ""), re.MULTILINE
    )
    if named is None:
        yield fault("config-certmanager names no issuer", "apply knative/cluster/config-certmanager.yaml")
        return
    issuer = find(cluster, _ISSUERS, named[1])
    if issuer is None or not is_ready(issuer):
        reason = condition(issuer or {}).get("message", "it does not exist")
        yield fault(f"ClusterIssuer {named[1]} is not ready: {reason}", "apply knative/cluster/issuer.yaml")
    else:
        yield ok(f"ClusterIssuer {named[1]} is ready")
