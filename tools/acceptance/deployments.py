"""Access to a deployed pipeline: on a Knative cluster, or on the local platform."""

import json
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from localkn.address import broker_url, read_status
from tools.cluster.reader import is_ready
from tools.deployment.kn import Kn, kn_of, traffic
from tools.deployment.kubectl import run_kubectl

_STAMP = "recsys.dev/accepted-at"


@dataclass(frozen=True)
class Address:
    """The URL to connect to, and the value of the Host header. With HTTPS, the certificate must be for that host."""

    url: str
    host: str

    @property
    def name(self) -> str:
        """The host without its port."""
        return urlsplit(f"//{self.host}").hostname or ""


class Deployment(Protocol):
    """A deployed pipeline. Methods raise KnError, KubectlError or LocalknError if the deployment does not answer."""

    kn: Kn

    def instances(self, service: str) -> list[str]:
        """Return the ready instances of *service* in revisions with traffic, without terminating ones."""
        ...

    def terminate(self, instance: str) -> None:
        """Send SIGTERM to *instance*, as draining a node does."""
        ...

    def broker(self) -> Address:
        """Return the address at which the Broker accepts events."""
        ...


def create_revision(deployment: Deployment, service: str) -> None:
    """Create a revision of *service* that differs only in an annotation, and wait until it serves."""
    deployment.kn.update(service, "--annotation-revision", f"{_STAMP}={time.time_ns()}")


class ClusterDeployment:
    """
    A pipeline on a cluster with Knative.

    Args:
        namespace: Namespace of the pipeline.
        kubectl: Command that runs kubectl.
        kn: Command that runs kn.
        broker: URL of a port-forward to the Broker. None for the Broker's own address, which works inside the cluster.
    """

    def __init__(self, namespace: str, *, kubectl: Sequence[str], kn: Sequence[str], broker: str | None) -> None:
        self.kn = Kn(kn, namespace)
        self._kubectl = [*kubectl, "--namespace", namespace]
        self._broker = broker

    def instances(self, service: str) -> list[str]:
        """See `Deployment`."""
        revisions = ",".join(traffic(self.kn.service(service)))
        selector = f"serving.knative.dev/revision in ({revisions})"
        pods = json.loads(run_kubectl(self._kubectl, "get", "pods", "--selector", selector, "--output", "json"))
        kept = [pod for pod in pods["items"] if is_ready(pod) and "deletionTimestamp" not in pod["metadata"]]
        return [pod["metadata"]["name"] for pod in kept]

    def terminate(self, instance: str) -> None:
        """Delete the pod."""
        run_kubectl(self._kubectl, "delete", "pod", instance, "--wait=false")

    def broker(self) -> Address:
        """See `Deployment`."""
        url = run_kubectl(
            self._kubectl, "get", "broker", "default", "--output", "jsonpath={.status.address.url}"
        ).strip()
        scheme, _, rest = url.partition("://")
        host, _, path = rest.partition("/")
        return Address(f"{(self._broker or f'{scheme}://{host}').rstrip('/')}/{path}", host)


class LocalDeployment:
    """
    A pipeline on the local platform.

    Args:
        state_dir: State directory of the pipeline.
    """

    def __init__(self, state_dir: Path) -> None:
        self._platform = state_dir / "platform"
        self.kn = kn_of("kn", None, state_dir)

    def instances(self, service: str) -> list[str]:
        """See `Deployment`; an instance's name is its process id."""
        revisions = read_status(self._platform)["services"][service]["revisions"]
        serving = [instance for each in revisions if each["traffic_percent"] for instance in each["instances"]]
        return [str(instance["pid"]) for instance in serving if instance["state"] == "ready"]

    def terminate(self, instance: str) -> None:
        """Send SIGTERM to the process."""
        os.kill(int(instance), signal.SIGTERM)

    def broker(self) -> Address:
        """See `Deployment`."""
        url = broker_url(self._platform, "default")
        return Address(url, url.partition("://")[2].partition("/")[0])
