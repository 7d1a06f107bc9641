"""The guides' patches and kustomization, held against the commands that they replace and against the manifests."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.knative.objects import (
    KNATIVE,
    ROOT,
    Object,
    assert_kubectl_agrees,
    build,
    changed_by_kn,
    container,
    environment,
    needs_kubectl,
    overlay,
    services,
    walk,
)

pytestmark = pytest.mark.may_block

GUIDES = ROOT / "docs/how-to"
ROLL_OUT = (GUIDES / "roll-out.md").read_text().partition("## Write changes as manifests")[2]
PAIRS = re.findall(
    r"```sh\n(kn service update .*?)\n```.*?```yaml\n(.*?)```", ROLL_OUT.partition("\n## ")[0], re.DOTALL
)
URL = "https://example.com/recsys.git//knative"


def comparable(service: Object) -> Any:
    """Return the spec of a Service in which the order of variables and of targets does not matter."""
    spec = service["spec"]
    container(service)["env"] = {each["name"]: each for each in container(service)["env"]}
    targets = [{key: value for key, value in each.items() if value} for each in spec.get("traffic") or ()]
    return {**spec, "traffic": sorted(targets, key=str)}


def kustomization(folder: Path, text: str) -> Path:
    """Write *text* as a kustomization, with the manifests of this repository in place of a release."""
    (folder / "kustomization.yaml").write_text(text.replace(URL, os.path.relpath(KNATIVE, folder.resolve())))
    return folder


@pytest.mark.parametrize(("command", "patch"), PAIRS)
def test_a_patch_does_what_its_command_does(tmp_path, command, patch):
    """The patch of the guide makes the same template and the same traffic as kn."""
    prod = f"apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [{URL}/overlays/prod]\n"
    changed = services(build(kustomization(tmp_path, prod + patch)))["rank-items"]
    assert comparable(changed) == comparable(changed_by_kn(services(overlay("prod"))["rank-items"], command))


def test_the_guide_has_patches():
    """The pattern above finds a command about the template and a command about the traffic."""
    assert ["--traffic" in command for command, _ in PAIRS] == [False, True]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Return a folder with the kustomization of the guide."""
    (text,) = re.findall(
        r"```yaml\n(apiVersion: kustomize.*?)```", (GUIDES / "run-on-a-cluster.md").read_text(), re.DOTALL
    )
    return kustomization(tmp_path, text.replace("?ref=v0.2.0", ""))


def test_the_kustomization_of_the_guide_leaves_no_placeholder(shop):
    """Namespace, images, stores and public name are the tenant's; no example of the manifests is left."""
    objects = build(shop)
    assert {body["metadata"].get("namespace", "shop") for body in objects} == {"shop"}
    left = [
        f"{body['kind']} {body['metadata']['name']}: {path}: {value}"
        for body in objects
        for path, value in walk(body)
        if isinstance(value, str) and "example.com" in value
    ]
    assert left == []
    found = {name: environment(service, objects) for name, service in services(objects).items()}
    assert found["extract-features"]["FEATURE_STORE_URL"] == found["dead-letters"]["DEAD_LETTERS_URL"]
    assert found["extract-features"]["FEATURE_STORE_URL"] == "rediss://redis.shop.test:6379/0"
    assert [each["metadata"]["name"] for each in objects if each["kind"] == "DomainMapping"] == ["recommend.shop.test"]


@needs_kubectl
def test_kubectl_builds_the_kustomization_of_the_guide(shop):
    """kubectl accepts the kustomization and makes the same objects."""
    assert_kubectl_agrees(shop)
