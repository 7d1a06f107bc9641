"""Starts programs of this project as processes, and pipelines that end with a block."""

import asyncio
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from localkn import control
from localkn.errors import LocalknError
from localkn.processes import free_port
from localkn.state import PlatformDirectory
from offline.state import StateDirectory
from recstore.urls import open_store
from recsys.records import UserRecord
from tools.store import copy_store

ROOT = Path(__file__).parents[1]
_LOCAL = ROOT / "knative/overlays/local"
_EXPOSURES = ROOT / "knative/overlays/local-exposures"
_PAUSE_S = 0.05
_BROKER = "http://broker-ingress.knative-eventing.svc.cluster.local/default/default"


def run(*command: str) -> None:
    """
    Run *command* in the root of the project, and keep its output back.

    Raises:
        RuntimeError: It failed; the message has its errors.
    """
    ended = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(f"{shlex.join(command)} failed: {ended.stderr.strip()}")


def run_verb(*words: str, state_dir: Path) -> None:
    """Run a verb of `./run.sh`, which installs what the verb needs, on *state_dir*; see `run`."""
    run("./run.sh", *words, "--state-dir", str(state_dir))


@contextmanager
def verb_up(state_dir: Path, *words: str, port: int | None = None) -> Iterator[int]:
    """Run `./run.sh up` with *words* until the block ends; yield its port, a free one if none is given."""
    port = port or free_port()
    run_verb("up", "--detach", "--port", str(port), *words, state_dir=state_dir)
    try:
        yield port
    finally:
        run_verb("down", state_dir=state_dir)


class RunningPipeline:
    """A running pipeline with the feature store *store_url*."""

    def __init__(self, folder: Path, port: int, store_url: str) -> None:
        self._control = PlatformDirectory(folder.absolute() / "platform").socket("control")
        self.port, self.store_url = port, store_url
        self.broker_url: str = self.status()["brokers"]["default/default"]

    def status(self) -> dict[str, Any]:
        """Return the data of `./run.sh status --json`."""
        found: dict[str, Any] = control.call(self._control, "status")
        return found

    def events(self) -> dict[str, Any]:
        """Return the data of `./run.sh events --json`."""
        found: dict[str, Any] = control.call(self._control, "events")
        return found

    def processes(self) -> dict[str, psutil.Process]:
        """Return the processes of the platform by name: localkn, Envoy, the dashboard, and each instance."""
        status = self.status()
        instances = {
            instance["pid"]: instance["name"]
            for service in (status["services"] | status["built_in"]).values()
            for revision in service["revisions"]
            for instance in revision["instances"]
            if instance["pid"]
        }
        platform = psutil.Process(min(instances)).parent()
        if platform is None:
            raise RuntimeError("the platform ended")
        named = {_name(process, instances): process for process in platform.children()}
        return {"localkn": platform, **named}

    def port_of(self, service: str) -> int:
        """Return the own port of the first ready instance of *service*."""
        status = self.status()
        revisions = (status["services"] | status["built_in"])[service]["revisions"]
        ready = (each for revision in revisions for each in revision["instances"] if each["state"] == "ready")
        return int(next(ready)["port"])

    async def until_delivered(self, *, within_s: float) -> dict[str, Any]:
        """Wait until no delivery is pending, at most *within_s*; return the broker's figures."""
        for _ in range(int(within_s / _PAUSE_S)):
            try:
                figures = await asyncio.to_thread(self.events)
            except LocalknError:  # the broker was killed a moment ago
                figures = {"waiting": -1}
            if figures["waiting"] == 0:
                return figures
            await asyncio.sleep(_PAUSE_S)
        return await asyncio.to_thread(self.events)

    async def records(self, prefix: str) -> dict[str, UserRecord]:
        """Return the store's records of users whose ids begin with *prefix*."""
        store = open_store(self.store_url)
        try:
            return {record.user_id: record async for record in store.scan() if record.user_id.startswith(prefix)}
        finally:
            await store.aclose()


def _name(process: psutil.Process, instances: Mapping[int, str]) -> str:
    return instances.get(process.pid) or ("dashboard" if "kndashboard" in process.cmdline() else process.name())


@contextmanager
def pipeline_running(
    folder: Path,
    *,
    redis_url: str | None = None,
    min_scale: int = 1,
    max_scale: int | None = None,
    exposures: bool = False,
    commands: Path = _LOCAL / "commands.yaml",
    settings: Sequence[str] = (),
) -> Iterator[RunningPipeline]:
    """
    Train if *folder* holds no model, and serve the pipeline until the block ends.

    Args:
        folder: The state directory.
        redis_url: A Redis to copy the trained store into and to serve from; None serves from SQLite.
        min_scale: Minimum number of instances of extract_features.
        max_scale: Maximum number of instances of each function; None keeps the manifests'.
        exposures: Keep exposures.
        commands: The commands of the images.
        settings: Further settings, each as SERVICE:NAME=VALUE.
    """
    run_verb("train", "--if-missing", state_dir=folder)
    current = StateDirectory(folder)
    overridden = [*current.environment(), *settings]
    store_url = current.store_url(current.require_current())
    if redis_url is not None:
        asyncio.run(copy_store(store_url, redis_url))
        store_url = redis_url
        overridden.append(f"extract-features:FEATURE_STORE_URL={redis_url}")
    # The same sink as in knative/components/served-events.
    overridden.append(f"recommend:K_SINK={_BROKER}")
    port, platform = free_port(), ["--state-dir", str(folder / "platform")]
    overrides = [word for setting in overridden for word in ("--env-override", setting)]
    manifests = _EXPOSURES if exposures else _LOCAL
    if max_scale is not None:
        manifests = _write_overlay(folder / "manifests", manifests, max_scale)
    given = ["--manifests", str(manifests), "--commands", str(commands), "--detach"]
    given += ["--port", str(port), "--dashboard-port", str(free_port())]
    _localkn("up", *platform, *given, *overrides)
    try:
        if min_scale > 1:
            scale = ["--scale-min", str(min_scale)]
            _localkn("kn", *platform, "service", "update", "extract-features", *scale)
        yield RunningPipeline(folder, port, store_url)
    finally:
        _localkn("down", *platform)


def _write_overlay(folder: Path, base: Path, max_scale: int) -> Path:
    """Write a kustomization of *base* with another largest number of instances; return its folder."""
    annotations = "/spec/template/metadata/annotations"
    patch = {"op": "replace", "path": f"{annotations}/autoscaling.knative.dev~1max-scale", "value": str(max_scale)}
    target = {"group": "serving.knative.dev", "kind": "Service"}
    folder.mkdir()
    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(base, folder)],
        "patches": [{"target": target, "patch": json.dumps([patch])}],
    }
    # JSON is YAML.
    (folder / "kustomization.yaml").write_text(json.dumps(overlay), "utf-8")
    return folder


def _localkn(*words: str) -> None:
    run(sys.executable, "-m", "localkn", *words)
