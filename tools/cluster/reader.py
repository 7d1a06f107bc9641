"""Reads the objects of a cluster with kubectl. It changes nothing."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Protocol

from tools.deployment.kubectl import KubectlError, run_kubectl

_UNKNOWN_KIND = "doesn't have a resource type"

KubeObject = Mapping[str, Any]


class Cluster(Protocol):
    """The objects of a cluster. Every method raises KubectlError if the cluster does not answer."""

    def version(self) -> str:
        """Return the version of Kubernetes, such as v1.34.1."""
        ...

    def all(self, kind: str, namespace: str | None = None) -> list[KubeObject]:
        """Return the objects of *kind*; without *namespace*, of all namespaces. An unknown kind has no objects."""
        ...

    def knows(self, kind: str) -> bool:
        """Tell whether the cluster has *kind*."""
        ...


def find(cluster: Cluster, kind: str, name: str, namespace: str | None = None) -> KubeObject | None:
    """Return an object; None if it does not exist."""
    return next((each for each in cluster.all(kind, namespace) if each["metadata"]["name"] == name), None)


def data_of(cluster: Cluster, config_map: str, namespace: str) -> Mapping[str, str]:
    """Return the entries of a ConfigMap; no entries if it does not exist."""
    found = find(cluster, "configmaps", config_map, namespace)
    return (found or {}).get("data") or {}


def condition(body: KubeObject) -> Mapping[str, Any]:
    """Return the condition Ready in the status of an object; an unknown one if the status has none."""
    conditions = (body.get("status") or {}).get("conditions") or ()
    return next((each for each in conditions if each["type"] == "Ready"), {"type": "Ready", "status": "Unknown"})


def is_ready(body: KubeObject) -> bool:
    """Tell whether an object is ready."""
    return bool(condition(body)["status"] == "True")


class KubectlCluster:
    """
    The cluster that kubectl is configured for.

    Args:
        command: The words that start kubectl, for instance `kubectl --context prod`.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        # Several checks read the same objects.
        self._list = cache(self._get)

    def version(self) -> str:
        """See `Cluster`."""
        return str(json.loads(run_kubectl(self._command, "version", "--output", "json"))["serverVersion"]["gitVersion"])

    def all(self, kind: str, namespace: str | None = None) -> list[KubeObject]:
        """See `Cluster`."""
        return self._list(kind, namespace) or []

    def knows(self, kind: str) -> bool:
        """See `Cluster`."""
        return self._list(kind, None) is not None

    def _get(self, kind: str, namespace: str | None) -> list[KubeObject] | None:
        where = ["--namespace", namespace] if namespace else ["--all-namespaces"]
        try:
            return list(json.loads(run_kubectl(self._command, "get", kind, *where, "--output", "json"))["items"])
        except KubectlError as error:
            if _UNKNOWN_KIND in str(error):
                return None
            raise
