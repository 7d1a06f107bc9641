"""Installing without a checkout, and several installations on one cluster."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.knative.objects import (
    KNATIVE,
    ON_CLUSTERS,
    Object,
    assert_kubectl_agrees,
    build,
    container,
    needs_kubectl,
    overlay,
    services,
    walk,
)

pytestmark = pytest.mark.may_block


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a git repository that holds the manifests and nothing else, with the tag v9."""
    folder = tmp_path_factory.mktemp("repository")
    shutil.copytree(KNATIVE, folder / "knative")
    author = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", "-A"], [*author, "commit", "-q", "-m", "manifests"], ["tag", "v9"]):
        subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True)
    return folder


@needs_kubectl
@pytest.mark.parametrize("name", ON_CLUSTERS)
def test_an_overlay_can_be_applied_from_a_url(repository, name):
    """`kubectl apply -k URL?ref=TAG` gets the same objects, because no path leaves `knative`."""
    url = f"file://{repository}//knative/overlays/{name}?ref=v9"
    done = subprocess.run(["kubectl", "kustomize", url], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    def names(objects: list[Object]) -> list[tuple[str, str]]:
        return sorted((body["kind"], body["metadata"]["name"]) for body in objects)

    assert names([each for each in yaml.safe_load_all(done.stdout) if each]) == names(overlay(name))


def tenant(folder: Path) -> Path:
    """Write an overlay that puts production into another namespace; return its folder."""
    there = os.path.relpath(KNATIVE / "overlays/prod", folder.resolve())
    lines = ["apiVersion: kustomize.config.k8s.io/v1beta1", "kind: Kustomization", "namespace: shop"]
    (folder / "kustomization.yaml").write_text("\n".join([*lines, f"resources: [{there}]"]))
    return folder


def test_an_installation_moves_to_another_namespace_by_one_line(tmp_path):
    """No object and no address of production in the namespace shop mentions the namespace recsys."""
    objects = build(tenant(tmp_path))
    strays = [
        f"{body['kind']} {body['metadata']['name']}: {path}: {value}"
        for body in objects
        for path, value in walk(body)
        if isinstance(value, str)
        and (re.search(r"\.recsys\.svc\b", value) or (path.endswith("namespace") and value == "recsys"))
    ]
    assert strays == []
    assert {body["metadata"].get("namespace", "shop") for body in objects} == {"shop"}


def test_hops_are_named_without_a_namespace(tmp_path):
    """Each Service that calls others names them alone: the function adds the namespace of its pod."""
    callers = 0
    for service in services(build(tenant(tmp_path))).values():
        env = {each["name"]: each.get("value", "") for each in container(service).get("env", ())}
        if "EXTRACT_FEATURES_URL" not in env:
            continue
        callers += 1
        assert (env["EXTRACT_FEATURES_URL"], env["RANK_ITEMS_URL"]) == ("http://extract-features", "http://rank-items")
    assert callers == 2


@needs_kubectl
def test_kubectl_builds_the_same_tenant(tmp_path):
    """The objects of the tenant above equal those that kubectl sends."""
    assert_kubectl_agrees(tenant(tmp_path))
