"""Names with content hashes as kustomize makes them, and the references to them."""

from pathlib import Path
from typing import Any

import pytest

from kubeyaml.errors import ManifestError
from kubeyaml.kustomize import build
from kubeyaml.naming import suffix

TOP = """
resources: [under]
configMapGenerator:
  - {name: shared, behavior: merge, literals: [B=2]}
"""
UNDER = """
namespace: dev
resources: [objects.yaml]
configurations: [references.yaml]
configMapGenerator:
  - {name: shared, literals: ["A=<&>"]}
secretGenerator:
  - {name: keys, literals: [T=token]}
patches:
  - target: {kind: Job}
    patch: |-
      - {op: test, path: /spec/template/spec/containers/0/name, value: main}
"""
REFERENCES = """
nameReference:
  - kind: ConfigMap
    version: v1
    fieldSpecs:
      - {group: serving.knative.dev, kind: Service, path: spec/template/spec/containers/envFrom/configMapRef/name}
      - {group: apps, kind: Deployment, path: spec/name}
"""
OBJECTS = """
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: rank}
spec:
  template:
    spec:
      containers:
        - image: rank
          envFrom: [{configMapRef: {name: shared}}]
          env: [{name: T, valueFrom: {secretKeyRef: {name: keys, key: T}}}, {name: O, valueFrom: {secretKeyRef: {name: other, key: T}}}]
      volumes: [{name: v, configMap: {name: shared}}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: job}
spec: {template: {spec: {containers: [{name: main}], volumes: [{name: v, secret: {secretName: keys}}, {name: w, configMap: {name: shared}}]}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: job}
subjects: [{kind: ServiceAccount, name: job}, {kind: User, name: ann}]
"""


@pytest.fixture
def made(tmp_path: Path) -> Path:
    (tmp_path / "under").mkdir()
    for name, content in {
        "kustomization.yaml": TOP,
        "under/kustomization.yaml": UNDER,
        "under/references.yaml": REFERENCES,
        "under/objects.yaml": OBJECTS,
    }.items():
        (tmp_path / name).write_text(content)
    return tmp_path


@pytest.mark.parametrize(
    ("data", "expected"), [(None, "6ct58987ht"), ({"one": ""}, "9g67k2htb6"), ({"A": "<&>", "B": "2"}, "2mb845hmm7")]
)
def test_hashes_equal_kustomizes(data: dict[str, str] | None, expected: str) -> None:
    """The first two cases come from kustomize's tests; kubectl made the third, with characters that Go escapes."""
    assert suffix({"kind": "ConfigMap", "data": data}) == expected


def test_references_follow_the_hashed_names(made: Path) -> None:
    """References in built-in kinds are updated; those in a Knative Service only if kustomize knows the field."""
    built: dict[str, dict[str, Any]] = {resource.kind: resource.body for resource in build(made)}
    shared, keys = built["ConfigMap"]["metadata"]["name"], built["Secret"]["metadata"]["name"]
    assert shared == f"shared-{suffix({'kind': 'ConfigMap', 'data': {'A': '<&>', 'B': '2'}})}"
    pod = built["Service"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["envFrom"][0]["configMapRef"]["name"] == shared
    assert [each["valueFrom"]["secretKeyRef"]["name"] for each in pod["containers"][0]["env"]] == [keys, "other"]
    assert pod["volumes"][0]["configMap"]["name"] == "shared"
    volumes = built["Job"]["spec"]["template"]["spec"]["volumes"]
    assert (volumes[0]["secret"]["secretName"], volumes[1]["configMap"]["name"]) == (keys, shared)
    assert built["RoleBinding"]["subjects"][0]["namespace"] == "dev"
    assert "namespace" not in built["RoleBinding"]["subjects"][1]


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("under/kustomization.yaml", "value: main", "value: other", r"test /spec.*it is 'main'"),
        ("under/references.yaml", "nameReference", "varReference", "varReference: is not understood here"),
    ],
)
def test_failed_tests_and_unsupported_configurations_are_refused(
    made: Path, file: str, old: str, new: str, message: str
) -> None:
    """A patch whose test fails and an unsupported configuration field are errors."""
    (made / file).write_text((made / file).read_text().replace(old, new))
    with pytest.raises(ManifestError, match=message):
        build(made)
