"""Patches find an entry of a list by its name: a position would change another entry when the list changes."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.knative.objects import (
    KNATIVE,
    ROOT,
    Object,
    assert_kubectl_agrees,
    build,
    container,
    needs_kubectl,
    services,
)

pytestmark = pytest.mark.may_block

PAGES = [*KNATIVE.rglob("*.yaml"), *(ROOT / "docs/how-to").glob("*.md"), *ROOT.glob("functions/*/README.md")]
POSITION = re.compile(r"\bpath:\s*[\"']?(/\S*?/(?:\d+|-))(?=[/,\s\"'}])|fieldPath\S*:.*?\.(\d+)\b")


def positions(text: str) -> Iterator[str]:
    """Yield each path of a patch that contains a position."""
    yield from (match[0] for match in POSITION.finditer(text))


@pytest.mark.parametrize("file", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_patch_depends_on_a_position(file):
    """Manifests, their comments and the guides name the entries of lists."""
    assert list(positions(file.read_text())) == []


@pytest.mark.parametrize(
    "patch",
    [
        "{op: replace, path: /spec/template/spec/containers/0/env/3/value, value: x}",
        'path: "/spec/template/spec/volumes/1"',
        "{op: add, path: /spec/template/spec/volumes/-, value: x}",
        "fieldPaths: [spec.template.spec.containers.0.image]",
    ],
)
def test_a_position_is_found(patch):
    """The test above notices a position in each form of a patch."""
    assert list(positions(patch))


def test_a_name_that_contains_digits_is_no_position():
    """Addresses, versions and annotations may contain digits."""
    assert not list(positions("{op: add, path: /metadata/annotations/a.b~1v1, value: 10}\nmountPath: /models/1\n"))


def with_patch(folder: Path, patch: str, *, components: Sequence[str] = ()) -> Path:
    """Write a kustomization that adds components to production and patches it; return its folder."""
    there = os.path.relpath(KNATIVE, folder.resolve())
    added = ", ".join(f"{there}/components/{name}" for name in components)
    (folder / "kustomization.yaml").write_text(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: shop\n"
        f"resources: [{there}/overlays/prod]\ncomponents: [{added}]\npatches:\n{patch}"
    )
    return folder


TENANT = """
  - patch: |-
      apiVersion: serving.knative.dev/v1
      kind: Service
      metadata: {name: extract-features}
      spec:
        template:
          metadata: {annotations: {autoscaling.knative.dev/max-scale: "9"}}
          spec:
            containers:
              - name: user-container
                env: [{name: FEATURE_STORE_URL, value: "rediss://redis.shop.test"}, {name: NEW, value: "1"}]
                resources: {limits: {memory: null}}
"""


def test_a_patch_changes_only_what_it_names(tmp_path):
    """A tenant's patch changes one variable, adds another, and removes a limit; everything else stays."""
    before = services(build(KNATIVE / "overlays/prod"))["extract-features"]
    after = services(build(with_patch(tmp_path, TENANT)))["extract-features"]

    def variables(service: Object) -> dict[str, Object]:
        return {each["name"]: each for each in container(service)["env"]}

    changed = {name: each for name, each in variables(after).items() if variables(before).get(name) != each}
    assert changed == {
        "FEATURE_STORE_URL": {"name": "FEATURE_STORE_URL", "value": "rediss://redis.shop.test"},
        "NEW": {"name": "NEW", "value": "1"},
    }
    assert variables(before).keys() - variables(after).keys() == set()
    assert (container(before)["resources"]["limits"], container(after)["resources"]["limits"]) == (
        {"memory": "256Mi"},
        {},
    )
    kept = [
        {key: each for key, each in container(one).items() if key not in {"env", "resources"}}
        for one in (before, after)
    ]
    assert kept[0] == kept[1]


@needs_kubectl
@pytest.mark.parametrize(
    "components",
    [
        ["exposures", "service-tokens", "zero", "model-image"],
        ["training", "model-s3", "redis-authority"],
        ["quota", "priority", "spread"],
    ],
)
def test_kubectl_merges_the_same_patches(tmp_path, components):
    """kubectl applies the patch of a tenant, and those of the optional components, as these tests see them."""
    assert_kubectl_agrees(with_patch(tmp_path, TENANT, components=components))
