"""The variables and files that ConfigMaps and Secrets give a container."""

from pathlib import Path
from typing import Any

import yaml

from kubeyaml.configuration import Configuration, expand
from kubeyaml.resources import Resource
from kubeyaml.templates import Template

OBJECTS = """
{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {A: "1", B: "2"}, binaryData: {RAW: YQ==}}
---
{apiVersion: v1, kind: Secret, metadata: {name: s}, data: {K: a2V5}, stringData: {P: plain}}
---
{apiVersion: serving.knative.dev/v1, kind: ConfigMap, metadata: {name: other}}
"""
CONFIGURATION = Configuration([Resource(body, "f") for body in yaml.safe_load_all(OBJECTS)])


def template(container: str, pod: str = "{}") -> Template:
    body: dict[str, Any] = {"spec": {"containers": [{"image": "x"} | yaml.safe_load(container)], **yaml.safe_load(pod)}}
    return Template.from_body(body)


def test_env_from_and_env_are_resolved_in_order() -> None:
    """Later definitions win, prefixes are added, and a missing optional reference is not a fault."""
    made = template(
        """
    envFrom: [{prefix: P_, configMapRef: {name: c}}, {secretRef: {name: s}}, {secretRef: {name: none, optional: true}}]
    env:
      - {name: K, value: mine}
      - {name: FROM, valueFrom: {configMapKeyRef: {name: c, key: A}}}
      - {name: SECRET, valueFrom: {secretKeyRef: {name: s, key: K}}}
      - {name: GONE, valueFrom: {secretKeyRef: {name: s, key: none, optional: true}}}
      - {name: JOINED, value: "$(FROM)-$(UNKNOWN)-$$(FROM)"}
      - {name: EMPTY}
    """.replace("configMapRef: {name: c, optional: true}", "configMapRef: {name: s2, optional: true}")
    )
    assert CONFIGURATION.variables(made) == {
        "P_A": "1", "P_B": "2", "P_RAW": "a", "K": "mine", "P": "plain", "FROM": "1", "SECRET": "key", "JOINED": "1-$(UNKNOWN)-$(FROM)", "EMPTY": "",
    }  # fmt: skip
    assert list(CONFIGURATION.missing(made)) == []


def test_missing_objects_and_entries_are_named() -> None:
    """The configuration names every object and entry that the template needs and the manifests lack."""
    made = template(
        """
        envFrom: [{configMapRef: {name: absent}}]
        env:
          - {name: A, valueFrom: {secretKeyRef: {name: s, key: none}}}
          - {name: B, valueFrom: {configMapKeyRef: {name: other, key: x}}}
        volumeMounts: [{name: v, mountPath: /v}]
        """,
        "volumes: [{name: v, projected: {sources: [{secret: {name: gone}}, {configMap: {name: c, items: [{key: Z, path: z}]}}]}}]",
    )
    assert list(CONFIGURATION.missing(made)) == [
        "ConfigMap absent is not in the manifests",
        "Secret s has no entry 'none'",
        "ConfigMap other is not in the manifests",
        "Secret gone is not in the manifests",
        "ConfigMap c has no entry 'Z'",
    ]


def test_volumes_are_written(tmp_path: Path) -> None:
    """Each volume is a directory with all entries, or with the listed ones under their own paths."""
    made = template(
        "volumeMounts: [{name: all, mountPath: /all}, {name: some, mountPath: /some}, {name: none, mountPath: /tmp}]",
        """
        volumes:
          - {name: all, configMap: {name: c}}
          - {name: some, secret: {secretName: s, items: [{key: K, path: deep/er}, {key: no, path: x}], optional: true}}
          - {name: none, emptyDir: {}}
        """,
    )
    places = CONFIGURATION.materialise(made, tmp_path)
    assert {mount: sorted(p.name for p in place.rglob("*")) for mount, place in places.items()} == {
        "/all": ["A", "B", "RAW"], "/some": ["deep", "er"], "/tmp": [],
    }  # fmt: skip
    assert (places["/all"] / "RAW").read_bytes() == b"a"


def test_references_are_expanded_as_kubernetes_does() -> None:
    """A reference to an undefined variable stays as written."""
    assert expand("$(A)$(B)", {"A": "1"}) == "1$(B)"
