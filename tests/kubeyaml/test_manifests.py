"""Manifests and kustomizations, loaded as kustomize builds them."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubeyaml.errors import ManifestError
from kubeyaml.manifests import load

SERVICE = """
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: rank, annotations: {since: 2026-01-01, until: "on"}}
spec:
  template:
    spec:
      containers:
        - image: ghcr.io/acme/rank:v1
          env: [{name: A, value: "1"}]
"""
OTHERS = """
{apiVersion: v1, kind: Namespace, metadata: {name: dev}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: reader}}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: train, labels: {x: y}}
spec: {jobTemplate: {spec: {template: {spec: {containers: [{image: "ghcr.io/acme/rank@sha256:00"}, {image: other}]}}}}}
"""
BASE = """
resources: [service.yaml, others.yaml]
configMapGenerator:
  - name: settings
    literals: [A=1, "B='two words'", C=x=y]
    options: {disableNameSuffixHash: true}
"""
OVERLAY = """
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: prod
resources: [../base]
components: [../part]
images:
  - {name: ghcr.io/acme/rank, newName: local/rank, newTag: dev}
  - {name: other, digest: "sha256:11"}
labels:
  - {pairs: {app: recsys}, includeSelectors: false}
generatorOptions: {disableNameSuffixHash: true}
configMapGenerator:
  - {name: settings, behavior: merge, literals: [A=2], files: [f.json, copy=f.json]}
  - {name: fresh, files: [f.json]}
secretGenerator:
  - {name: keys, literals: [T=token], type: Opaque}
patches:
  - target: {kind: Service, name: ra.k}
    patch: |-
      - {op: add, path: /spec/template/spec/containers/0/env/-, value: {name: B, value: "2"}}
      - {op: add, path: /spec/template/spec/containers/0/env/0, value: {name: Z, value: "0"}}
      - {op: replace, path: /metadata/annotations/since, value: now}
      - {op: remove, path: /metadata/annotations/until}
      - {op: add, path: /metadata/annotations/example.com~1tilde~0, value: x}
  - target: {group: batch, version: v1}
    path: job.yaml
  - target: {kind: Service, name: nowhere}
    patch: |-
      - {op: remove, path: /spec}
"""
PART = """
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
resources: [more.yaml]
components: [../inner]
generatorOptions: {disableNameSuffixHash: true}
configMapGenerator:
  - {name: settings, behavior: merge, literals: [D=of the component]}
patches:
  - target: {kind: Service, name: rank|inner}
    patch: |-
      - {op: add, path: /metadata/annotations/part, value: "yes"}
"""
INNER = """
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
resources: [inner.yaml]
"""


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    """Write a base and an overlay that use every supported feature."""
    for name, content in {
        "base/kustomization.yaml": BASE,
        "base/service.yaml": SERVICE,
        "base/others.yaml": OTHERS,
        "over/kustomization.yaml": OVERLAY,
        "part/kustomization.yaml": PART,
        "part/more.yaml": "{apiVersion: v1, kind: ServiceAccount, metadata: {name: more}}",
        "inner/kustomization.yaml": INNER,
        "inner/inner.yaml": SERVICE.replace("rank,", "inner,").replace("since: 2026-01-01, ", ""),
        "over/f.json": '{"k": 1}',
        "over/job.yaml": "- {op: replace, path: /metadata/labels/x, value: z}",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path / "over"


def by_name(bodies: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(body["kind"], body["metadata"]["name"]): body for body in bodies}


def test_an_overlay_is_built(overlay: Path) -> None:
    """The result contains resources, generators, patches, images, labels and the namespace."""
    built = by_name([resource.body for resource in load(overlay)])
    rank = built["Service", "rank"]
    assert rank["metadata"] == {
        "name": "rank", "namespace": "prod", "labels": {"app": "recsys"},
        "annotations": {"since": "now", "example.com/tilde~": "x", "part": "yes"},
    }  # fmt: skip
    (container,) = rank["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "local/rank:dev"
    assert [variable["name"] for variable in container["env"]] == ["Z", "A", "B"]
    assert built["ConfigMap", "settings"]["data"] == {
        "A": "2",
        "B": "two words",
        "C": "x=y",
        "f.json": '{"k": 1}',
        "copy": '{"k": 1}',
        "D": "of the component",
    }
    assert built["Service", "inner"]["metadata"]["annotations"]["part"] == "yes"
    assert built["ServiceAccount", "more"]["metadata"]["namespace"] == "prod"  # fmt: skip
    assert built["Secret", "keys"]["data"] == {"T": "dG9rZW4="}
    assert "namespace" not in built["ClusterRole", "reader"]["metadata"]
    assert ("Namespace", "prod") in built


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl, the reference, is not installed")
def test_kubectl_builds_the_same_objects(overlay: Path) -> None:
    """Every object equals the one that `kubectl kustomize` prints."""
    done = subprocess.run(["kubectl", "kustomize", overlay], capture_output=True, text=True, check=True)
    assert by_name([r.body for r in load(overlay)]) == by_name(list(yaml.safe_load_all(done.stdout)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("namespace: prod", "namePrefix: x-", "kustomization.yaml: namePrefix: is not understood here"),
        ("labels:", "commonLabels: {a: b}\nlabels:", "commonLabels: is not understood here"),
        ("includeSelectors: false", "includeTemplates: true", "labels.includeTemplates: is not understood here"),
        ("includeSelectors: false", "includeSelectors: true", "includeSelectors would put a selector"),
        ("newTag: dev", "tagSuffix: x", "images.tagSuffix: is not understood here"),
        ("type: Opaque", "envs: [x]", "secretGenerator.envs: is not understood here"),
        ("generatorOptions: {disableNameSuffixHash: true}", "generatorOptions: {labels: {}}", "generatorOptions.labels: is not"),
        ("name: settings", "name: missing", "there is no ConfigMap missing to merge"),
        ("files: [f.json]", "files: [g.json]", "No such file"),
        ("{kind: Service, name: ra.k}", "{labelSelector: x}", "patches.target.labelSelector: is not understood here"),
        ("op: remove, path: /metadata", "op: copy, path: /metadata", "only add, replace, remove and test"),
        ("op: remove, path: /metadata", "op: remove, path: /nowhere", "remove /nowhere/annotations/until"),
        ("target: {group: batch, version: v1}\n    ", "", "a patch is a mapping, or has a target and is a list"),
        ("- {op: remove, path: /spec}", "just text", "a patch is a mapping, or has a target and is a list"),
        ("- {op: remove, path: /spec}", "- {", "kustomization.yaml: "),
        ("[../base]", "[../nowhere]", "nowhere: No such file"),
        ("[../base]", "[..]", "no kustomization.yaml in this directory"),
        ("[../base]", "[../base, ../base]", "is defined in"),
    ],
)  # fmt: skip
def test_unsupported_fields_are_refused_by_name(overlay: Path, old: str, new: str, message: str) -> None:
    """The error names the file and the field; nothing is skipped silently."""
    assert old in OVERLAY
    (overlay / "kustomization.yaml").write_text(OVERLAY.replace(old, new, 1))
    with pytest.raises(ManifestError, match=message.replace(".", r"\.")):
        load(overlay)


def test_a_directory_of_manifests_is_loaded(tmp_path: Path) -> None:
    """The loader reads every YAML file of a directory, expands a List, and keeps dates as text."""
    (tmp_path / "a.yaml").write_text(SERVICE)
    (tmp_path / "b.yml").write_text("kind: List\nitems: [{apiVersion: v1, kind: ConfigMap, metadata: {name: c}}]")
    (tmp_path / "notes.txt").write_text("{")
    loaded = load(tmp_path)
    assert [(r.kind, r.name, r.namespace, r.is_service) for r in loaded] == [
        ("Service", "rank", "default", True), ("ConfigMap", "c", "default", False),
    ]  # fmt: skip
    assert loaded[0].body["metadata"]["annotations"]["since"] == "2026-01-01"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "m.yaml: while parsing"),
        ("a: 1\na: 2", "key 'a' is given twice"),
        ("just: this", "m.yaml: a document without apiVersion, kind and metadata"),
        ("- list", "a document without apiVersion, kind and metadata"),
        ("# nothing", "no Kubernetes objects found"),
        (SERVICE + "---" + SERVICE, "Service rank is defined in"),
    ],
)
def test_invalid_files_are_refused(tmp_path: Path, content: str, message: str) -> None:
    """The error names the file."""
    (tmp_path / "m.yaml").write_text(content)
    with pytest.raises(ManifestError, match=message):
        load(tmp_path / "m.yaml")


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """A missing path raises ManifestError with the reason."""
    with pytest.raises(ManifestError, match="No such file or directory"):
        load(tmp_path / "nothing.yaml")
