"""A healthy cluster as kubectl prints it, by the published API types, and a kubectl that serves it."""

import copy
import json
import stat
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from kubeyaml.resources import Resource
from tools.cluster.wanted import WantedObjects

Objects = dict[str, list[dict[str, Any]]]
"""Objects by kind, as `kubectl get KIND` names it."""

READY = [{"type": "Ready", "status": "True"}]
CONTROL_PLANE = {
    "knative-serving": ["activator", "autoscaler", "controller", "net-kourier-controller", "webhook"],
    "knative-eventing": ["eventing-controller", "eventing-webhook", "imc-controller", "mt-broker-ingress"],
    "kourier-system": ["3scale-kourier-gateway"],
}
FILLED = {"redis.example.com": "redis.shop.test", "registry.example.com": "registry.shop.test"}


def made(name: str, namespace: str | None = None, **fields: Any) -> dict[str, Any]:
    """Return an object; *fields* are its top-level fields, `labels` those of its metadata."""
    labels = fields.pop("labels", {})
    return {"metadata": {"name": name, "labels": labels} | ({"namespace": namespace} if namespace else {}), **fields}


def filled(overlay: WantedObjects) -> WantedObjects:
    """Replace the placeholders of production, as its operator does."""

    def replaced(body: dict[str, Any]) -> dict[str, Any]:
        text = json.dumps(body)
        for placeholder, value in FILLED.items():
            text = text.replace(placeholder, value)
        return dict(json.loads(text.replace("recommend.example.com", "recommend.shop.test")))

    overlay.resources = [Resource(replaced(each.body), each.source) for each in overlay.resources]
    return overlay


def healthy(wanted: WantedObjects) -> Objects:
    """Return the objects of a cluster on which *wanted* is deployed and nothing is wrong."""
    space = wanted.namespace
    serving = {
        "config-network": {
            "ingress-class": "kourier.ingress.networking.knative.dev",
            "external-domain-tls": "Enabled",
        },
        "config-domain": {"_example": "…", "shop.test": ""},
        "config-features": {"_example": "…"} | dict.fromkeys(wanted.flags(), "enabled"),
        "config-observability": {"metrics-protocol": "prometheus", "request-metrics-protocol": "prometheus"},
        "config-certmanager": {"issuerRef": "kind: ClusterIssuer\nname: letsencrypt\n"},
    }
    found: Objects = {
        "namespaces": [
            made("knative-serving", labels={"app.kubernetes.io/version": "1.21.2"}),
            made("knative-eventing", labels={"app.kubernetes.io/version": "1.21.0"}),
            made(space, labels={"team": "shop"}),
        ],
        "nodes": [made("node-a", spec={}), made("node-b", spec={})],
        "configmaps": [
            *(made(name, "knative-serving", data=data) for name, data in serving.items()),
            made("model", space, binaryData={"factors.safetensors": "AAAA"}),
        ],
        "secrets": [],
        "deployments.apps": [
            made(name, namespace, spec={"replicas": 2}, status={"availableReplicas": 2})
            for namespace, names in CONTROL_PLANE.items()
            for name in names
        ],
        "horizontalpodautoscalers.autoscaling": [made("3scale-kourier-gateway", "kourier-system")],
        "clusterissuers.cert-manager.io": [made("letsencrypt", status={"conditions": READY})],
        "clusterdomainclaims.networking.internal.knative.dev": [made("recommend.shop.test", spec={"namespace": space})],
        "certificates.networking.internal.knative.dev": [
            made("recommend.shop.test", space, status={"conditions": READY})
        ],
        "certificates.cert-manager.io": [
            made("recommend.shop.test", space, status={"conditions": READY, "notAfter": "2999-01-01T00:00:00Z"})
        ],
        "domainmappings.serving.knative.dev": [made("recommend.shop.test", space, status={"conditions": READY})],
        "podmonitors.monitoring.coreos.com": [made("recsys-functions", space, labels={"release": "prom"})],
        "prometheuses.monitoring.coreos.com": [
            made(
                "main",
                "monitoring",
                spec={
                    "podMonitorSelector": {"matchLabels": {"release": "prom"}},
                    "podMonitorNamespaceSelector": {"matchLabels": {"team": "shop"}},
                },
            )
        ],
        "persistentvolumeclaims": [made(name, space, status={"phase": "Bound"}) for name in wanted.claims()],
        "services.serving.knative.dev": [],
        "pods": [],
        "endpointslices.discovery.k8s.io": [
            made(
                "feature-store-1",
                space,
                labels={"kubernetes.io/service-name": "feature-store"},
                endpoints=[{"conditions": {"ready": True}}],
            )
        ],
    }
    for service in wanted.services:
        status = {
            "conditions": READY,
            "latestReadyRevisionName": f"{service.name}-00001",
            "traffic": [{"percent": 100}],
        }
        found["services.serving.knative.dev"].append(made(service.name, space, status=status))
        for node in ("node-a", "node-b"):
            labels = {"serving.knative.dev/service": service.name}
            pod = made(f"{service.name}-{node}", space, labels=labels, spec={"nodeName": node})
            found["pods"].append(pod | {"status": {"conditions": READY}})
    for kind in ("Broker", "Trigger"):
        objects = [made(each.name, space, status={"conditions": READY}) for each in wanted.of_kind(kind)]
        found[f"{kind.lower()}s.eventing.knative.dev"] = objects
    for _, kind, name, key in wanted.references():
        if name != "model":
            found[f"{kind.lower()}s"].append(made(name, space, data={key or "any": "eA=="}))
    return found


class RecordedCluster:
    """A `Cluster` of recorded objects. A kind without an entry is unknown to the cluster."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects

    def version(self) -> str:
        return "v1.34.1"

    def all(self, kind: str, namespace: str | None = None) -> list[Mapping[str, Any]]:
        return [each for each in self.objects.get(kind, ()) if namespace in {None, each["metadata"].get("namespace")}]

    def knows(self, kind: str) -> bool:
        return kind in self.objects


def changed(objects: Objects, kind: str, name: str, change: Callable[[dict[str, Any]], None]) -> Objects:
    """Return a copy of *objects* in which *change* was applied to the objects of this name."""
    copied = copy.deepcopy(objects)
    named = [each for each in copied[kind] if each["metadata"]["name"] == name]
    assert named, f"no {kind} {name}"
    for each in named:
        change(each)
    return copied


def without(objects: Objects, kind: str, name: str | None = None) -> Objects:
    """Return *objects* without an object, or without a whole kind."""
    if name is None:
        return {key: value for key, value in objects.items() if key != kind}
    assert any(each["metadata"]["name"] == name for each in objects[kind]), f"no {kind} {name}"
    return {**objects, kind: [each for each in objects[kind] if each["metadata"]["name"] != name]}


def kubectl(path: Path, objects: Objects, *, forbidden: Collection[str] = ()) -> str:
    """Write a kubectl that serves *objects*, with kubectl's own errors, and records its arguments."""
    folder = path.with_suffix(".d")
    folder.mkdir()
    for kind, bodies in objects.items():
        spaces = {each["metadata"].get("namespace") for each in bodies} | {None}
        for space in spaces:
            items = [each for each in bodies if space in {None, each["metadata"].get("namespace")}]
            (folder / f"{kind}@{space or ''}").write_text(json.dumps({"items": items}), "utf-8")
        (folder / kind).touch()
    for kind in forbidden:
        (folder / f"{kind}!").touch()
    path.write_text(
        f"""#!/bin/sh
cd {folder} && echo "$*" >> {path.with_suffix(".log")}
[ "$1" = version ] && {{ echo '{{"serverVersion": {{"gitVersion": "v1.34.1"}}}}'; exit; }}
[ "$3" = --namespace ] && space=$4
[ -e "$2!" ] && {{ echo "Error from server (Forbidden): $2 is forbidden" >&2; exit 1; }}
[ -e "$2" ] || {{ echo "error: the server doesn't have a resource type \\"${{2%%.*}}\\"" >&2; exit 1; }}
cat "$2@$space" 2>/dev/null || echo '{{"items": []}}'
""",
        "utf-8",
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)
