"""What acceptance wants of the place that a pipeline runs on: a cluster, or the platform of this machine."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from localkn import control
from localkn.errors import LocalknError
from localkn.state import StateDirectory
from tools.kn import Kn, traffic
from tools.send_event import broker_url

_TIMEOUT_S = 60.0
_STAMP = "recsys.dev/accepted-at"


class PlatformError(Exception):
    """The platform cannot be asked, or refuses; the message is what it said."""


@dataclass(frozen=True)
class Address:
    """Where to connect, and the name that is asked for there."""

    url: str
    host: str


class Platform(Protocol):
    """Where the pipeline runs. Every method raises PlatformError or KnError where it cannot be asked."""

    kn: Kn

    def instances(self, service: str) -> list[str]:
        """Return the instances of *service* that are ready, of revisions with traffic, and not told to end."""
        ...

    def end(self, instance: str) -> None:
        """Tell *instance* to end, as a drained node would."""
        ...

    def broker(self) -> Address:
        """Return where the Broker takes events."""
        ...


def renew(platform: Platform, service: str) -> None:
    """Make a revision of *service* that differs in nothing but an annotation, and wait until it serves."""
    platform.kn.update(service, "--annotation-revision", f"{_STAMP}={time.time_ns()}")


class Cluster:
    """
    A cluster with Knative.

    Args:
        namespace: Of the pipeline.
        kubectl: The words that start it.
        kn: The words that start kn.
        broker: Connect here for the Broker: a port-forward. None for its own address, known inside only.
    """

    def __init__(self, namespace: str, *, kubectl: Sequence[str], kn: Sequence[str], broker: str | None) -> None:
        self.kn = Kn(kn, namespace)
        self._kubectl = [*kubectl, "--namespace", namespace]
        self._broker = broker

    def instances(self, service: str) -> list[str]:
        """See `Platform`."""
        revisions = ",".join(traffic(self.kn.service(service)))
        chosen = f"serving.knative.dev/revision in ({revisions})"
        pods = json.loads(self._run("get", "pods", "--selector", chosen, "--output", "json"))
        return [pod["metadata"]["name"] for pod in pods["items"] if _is_ready(pod)]

    def end(self, instance: str) -> None:
        """Delete the pod."""
        self._run("delete", "pod", instance, "--wait=false")

    def broker(self) -> Address:
        """See `Platform`."""
        url = self._run("get", "broker", "default", "--output", "jsonpath={.status.address.url}").strip()
        scheme, _, rest = url.partition("://")
        host, _, path = rest.partition("/")
        return Address(f"{(self._broker or f'{scheme}://{host}').rstrip('/')}/{path}", host)

    def _run(self, *words: str) -> str:
        command = [*self._kubectl, *words]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PlatformError(f"{command[0]} does not run: {error}") from error
        if done.returncode:
            raise PlatformError(f"{shlex.join(command)}: {(done.stderr or done.stdout).strip()}")
        return done.stdout


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", ())}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


class Local:
    """
    The platform of this machine.

    Args:
        state_dir: Of the pipeline.
    """

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        folder = (state_dir / "platform").absolute()
        self._control = StateDirectory(folder).socket("control")
        # `kn` of localkn takes the state directory among its own flags.
        self.kn = Kn([sys.executable, "-m", "localkn", "kn", "--state-dir", str(folder)])

    def instances(self, service: str) -> list[str]:
        """See `Platform`; an instance's name is its process id."""
        try:
            revisions = control.call(self._control, "status")["services"][service]["revisions"]
        except LocalknError as error:
            raise PlatformError(str(error)) from error
        serving = [instance for one in revisions if one["traffic_percent"] for instance in one["instances"]]
        return [str(instance["pid"]) for instance in serving if instance["state"] == "ready"]

    def end(self, instance: str) -> None:
        """Send SIGTERM."""
        os.kill(int(instance), signal.SIGTERM)

    def broker(self) -> Address:
        """See `Platform`."""
        try:
            url = broker_url(self._state_dir, "default")
        except LocalknError as error:
            raise PlatformError(str(error)) from error
        return Address(url, url.partition("://")[2].partition("/")[0])
