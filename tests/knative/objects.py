"""The overlays as the objects that a cluster gets."""

import argparse
import copy
import functools
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubeyaml import edits
from kubeyaml.kustomize import build as kubeyaml_build
from localkn.kn import _edit_template, add_verbs

ROOT = Path(__file__).parents[2]
KNATIVE = ROOT / "knative"
OVERLAYS = sorted(path.name for path in (KNATIVE / "overlays").iterdir())
# localkn runs these; clusters get the others.
ON_ONE_MACHINE = {"local", "local-exposures", "fused", "zero"}
ON_CLUSTERS = [name for name in OVERLAYS if name not in ON_ONE_MACHINE]
FUNCTIONS = ("extract-features", "rank-items", "recommend")

Object = dict[str, Any]
needs_kubectl = pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")


@functools.cache
def _built(directory: Path) -> list[Object]:
    return [resource.body for resource in kubeyaml_build(directory)]


def build(directory: Path) -> list[Object]:
    """Return the objects that kustomize builds from *directory*, copied at every call."""
    return copy.deepcopy(_built(directory))


def build_by_kubectl(directory: Path) -> list[Object]:
    done = subprocess.run(["kubectl", "kustomize", str(directory)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def assert_kubectl_agrees(directory: Path) -> None:
    """Check that the objects that these tests see equal those that `kubectl apply -k` sends."""

    def key(body: Object) -> tuple[str, str, str]:
        return body["apiVersion"], body["kind"], body["metadata"]["name"]

    assert sorted(build(directory), key=key) == sorted(build_by_kubectl(directory), key=key)


def changed_by_kn(service: Object, command: str) -> Object:
    """Return *service* as localkn's kn changes it, which works like the real kn."""
    parser = argparse.ArgumentParser()
    add_verbs(parser)
    options, unknown = parser.parse_known_args([w for w in shlex.split(command)[1:] if w != "--namespace"])
    assert [word for word in unknown if word.startswith("-")] in ([], ["--env-value-from"])
    changed: Object = copy.deepcopy(service)
    _edit_template(changed, options)
    # The Service after the candidate has been created.
    if "candidate" in command and not options.tag:
        tag = {"latestRevision": True, "percent": 0, "tag": "candidate"}
        changed["spec"]["traffic"] = [tag, {"revisionName": "rank-items-00007", "percent": 100}]
    if options.traffic:
        changed["spec"]["traffic"] = edits.traffic(
            {**changed, "status": {"traffic": []}},
            tags=options.tag, untags=options.untag, shares=options.traffic, mutation=bool(options.image),
        )  # fmt: skip
        assert sum(target.get("percent") or 0 for target in changed["spec"]["traffic"]) == 100
    return changed


def overlay(name: str) -> list[Object]:
    return build(KNATIVE / "overlays" / name)


def is_knative(body: Object) -> bool:
    return (body["apiVersion"], body["kind"]) == ("serving.knative.dev/v1", "Service")


def pod_of(body: Object) -> Object | None:
    """Return the pod that *body* describes, also that of a CronJob; None if it describes none."""
    spec = body.get("spec") or {}
    if body["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    pod: Object | None = spec.get("template", {}).get("spec")
    return pod


def pods(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Yield the name of each object that describes pods, and its pod."""
    for body in objects:
        if pod := pod_of(body):
            yield body["metadata"]["name"], pod


def services(objects: list[Object]) -> dict[str, Object]:
    return {body["metadata"]["name"]: body for body in objects if is_knative(body)}


def functions(objects: list[Object]) -> dict[str, Object]:
    """Return the Services of the functions; of the fused function, the only one is recommend."""
    found = services(objects)
    return {name: found[name] for name in FUNCTIONS if name in found}


def container(service: Object) -> Object:
    (found,) = service["spec"]["template"]["spec"]["containers"]
    return found  # type: ignore[no-any-return]


def environment(service: Object, objects: list[Object]) -> dict[str, str]:
    """Return every variable that the manifests give a container; the value of a Secret is `secret`."""
    maps = {body["metadata"]["name"]: body.get("data") or {} for body in objects if body["kind"] == "ConfigMap"}
    found: dict[str, str] = {}
    for source in container(service).get("envFrom") or ():
        found |= maps[source["configMapRef"]["name"]]
    for entry in container(service).get("env") or ():
        found[entry["name"]] = "secret" if "valueFrom" in entry else str(entry.get("value", ""))
    return found


def annotations(service: Object) -> dict[str, str]:
    """Return the scaling annotations without their group."""
    found = service["spec"]["template"]["metadata"]["annotations"]
    return {key.rpartition("/")[2]: value for key, value in found.items()}


def walk(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value with its path, which leaves out list positions."""
    yield path, node
    if isinstance(node, dict):
        for key, value in node.items():
            yield from walk(value, f"{path}.{key}" if path else key)
    elif isinstance(node, list):
        for item in node:
            yield from walk(item, path)
