"""The objects that an overlay applies, and what they need of a cluster."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from kubeyaml.annotations import SCALING, annotations_of
from kubeyaml.configuration import references
from kubeyaml.errors import ManifestError
from kubeyaml.manifests import load
from kubeyaml.resources import Resource
from kubeyaml.templates import Template

# Fields of a pod that Serving accepts only behind a flag. Source: knative/serving pkg/apis/config/features.go.
POD_FLAGS: Final = {
    "affinity": "kubernetes.podspec-affinity",
    "nodeSelector": "kubernetes.podspec-nodeselector",
    "priorityClassName": "kubernetes.podspec-priorityclassname",
    "runtimeClassName": "kubernetes.podspec-runtimeclassname",
    "tolerations": "kubernetes.podspec-tolerations",
    "topologySpreadConstraints": "kubernetes.podspec-topologyspreadconstraints",
}
_VOLUME_FLAGS: Final = {
    "csi": "kubernetes.podspec-volumes-csi",
    "image": "kubernetes.podspec-volumes-image",
    "persistentVolumeClaim": "kubernetes.podspec-persistent-volume-claim",
}


class WantedObjects:
    """
    The objects of an overlay.

    Args:
        folder: The folder of the overlay, or a file with its objects.

    Raises:
        ManifestError: The overlay cannot be built, or has no Knative Service.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.resources: Sequence[Resource] = load(folder)
        if not self.services:
            raise ManifestError([f"{folder}: has no Knative Service"])
        self.namespace = self.services[0].namespace

    @property
    def services(self) -> list[Resource]:
        """The Knative Services."""
        return [each for each in self.resources if each.is_service]

    def apply_command(self) -> str:
        """Return the command that deploys the objects."""
        return f"kubectl apply {'-k' if self.folder.is_dir() else '-f'} {self.folder}"

    def of_kind(self, kind: str) -> list[Resource]:
        """Return the objects of *kind*."""
        return [each for each in self.resources if each.kind == kind]

    def lasting(self) -> list[str]:
        """Return the names of the Services that always have at least two instances."""
        return [
            each.name
            for each in self.services
            if int(annotations_of(each.body["spec"]["template"]).get(f"{SCALING}/min-scale", 0)) > 1
        ]

    def flags(self) -> dict[str, str]:
        """Return each feature flag of Serving that a Service needs, and the name of such a Service."""
        return {flag: service.name for service in self.services for flag in _flags(_pod(service))}

    def references(self) -> Iterator[tuple[str, str, str, str | None]]:
        """Yield Service, kind, name and entry of each ConfigMap or Secret that must exist and is not in the overlay."""
        there = {(each.kind, each.name) for each in self.resources}
        for service in self.services:
            for kind, reference, key in references(Template.from_body(service.body["spec"]["template"])):
                if not reference.get("optional") and (kind, reference["name"]) not in there:
                    yield service.name, kind, reference["name"], key

    def claims(self) -> set[str]:
        """Return the names of the PersistentVolumeClaims that the Services mount."""
        volumes = [volume for service in self.services for volume in _pod(service).get("volumes") or ()]
        return {each["persistentVolumeClaim"]["claimName"] for each in volumes if each.get("persistentVolumeClaim")}

    def images(self) -> dict[str, str]:
        """Return the image of each Service."""
        return {service.name: _pod(service)["containers"][0]["image"] for service in self.services}

    def variables(self) -> Iterator[tuple[str, str, str]]:
        """Yield Service, name and value of each variable of a Service that has a plain value."""
        for service in self.services:
            for variable in _pod(service)["containers"][0].get("env") or ():
                if isinstance(variable.get("value"), str):
                    yield service.name, variable["name"], variable["value"]

    def admitted_namespaces(self) -> set[str]:
        """Return the namespaces whose pods the NetworkPolicies admit; none without policies."""
        found: set[str] = set()
        for policy in self.of_kind("NetworkPolicy"):
            for rule in policy.body["spec"].get("ingress") or ():
                for source in rule.get("from") or ():
                    labels = (source.get("namespaceSelector") or {}).get("matchLabels") or {}
                    found |= {value for name, value in labels.items() if name == "kubernetes.io/metadata.name"}
        return found


def hop_namespace(value: str) -> tuple[str, str] | None:
    """Return Service and namespace of the URL of a Service inside the cluster; None for any other value."""
    match = re.match(r"https?://([^./:]+)\.([^./:]+)\.svc\b", value)
    return (match[1], match[2]) if match else None


def _pod(service: Resource) -> Mapping[str, Any]:
    return dict(service.body["spec"]["template"]["spec"])


def _flags(pod: Mapping[str, Any]) -> Iterator[str]:
    yield from (flag for field, flag in POD_FLAGS.items() if pod.get(field))
    for volume in pod.get("volumes") or ():
        yield from (flag for field, flag in _VOLUME_FLAGS.items() if volume.get(field))
        if volume.get("persistentVolumeClaim") and not volume["persistentVolumeClaim"].get("readOnly"):
            yield "kubernetes.podspec-persistent-volume-write"
