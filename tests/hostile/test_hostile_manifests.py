"""Manifests that an attacker wrote: they are refused with one sentence, and touch nothing outside their place."""

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kubeyaml.configuration import Configuration
from kubeyaml.documents import parse_documents
from kubeyaml.errors import ManifestError
from kubeyaml.eventing import bind_sinks, routing
from kubeyaml.manifests import load
from kubeyaml.resources import Resource
from kubeyaml.templates import Template
from kubeyaml.validation import faults
from localkn.__main__ import main
from localkn.commands import Commands
from localkn.processes import free_port

SAMPLE = Path(__file__).parents[1] / "localkn/sample"
SERVICE = """
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: front}
spec:
  template:
    spec:
      volumes: [%s]
      containers: [{image: front, volumeMounts: [%s]}]
"""
MOUNT = "{name: v, mountPath: /etc/v}"
BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "\n".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
"""Ten to the ninth nodes in nine lines."""


def found(text: str, directory: Path) -> list[str]:
    """Return what is wrong with the manifest *text*, as `up` looks for it."""
    path = directory / "manifest.yaml"
    path.write_text(text)
    return [fault for resource in load(path) for fault in faults(resource)]


@pytest.mark.parametrize("path", ["../../X", "/etc/X", "a/../../X", "..X", "a/..", ""])
@pytest.mark.parametrize(
    "volume",
    [
        "configMap: {name: c, items: [{key: K, path: %s}]}",
        "secret: {secretName: c, items: [{key: K, path: %s}]}",
        "projected: {sources: [{configMap: {name: c, items: [{key: K, path: %s}]}}]}",
        "projected: {sources: [{serviceAccountToken: {path: %s}}]}",
        "projected: {sources: [{downwardAPI: {items: [{path: %s, fieldRef: {fieldPath: metadata.name}}]}}]}",
    ],
)
def test_a_volume_is_written_below_its_own_directory(path: str, volume: str, tmp_path: Path) -> None:
    """A path that is absolute or climbs out is refused, as the API server refuses the pod."""
    refused = found(SERVICE % (f"{{name: v, {volume % json.dumps(path)}}}", MOUNT), tmp_path)
    assert refused
    assert all(".path: " in fault for fault in refused)


@pytest.mark.parametrize("path", ["../X", "/etc/X", "a/../../X"])
def test_a_sub_path_stays_below_its_volume(path: str, tmp_path: Path) -> None:
    """`subPath` may not lead out of the volume."""
    mount = f"{{name: v, mountPath: /etc/v, subPath: {path}}}"
    (fault,) = found(SERVICE % ("{name: v, emptyDir: {}}", mount), tmp_path)
    assert "volumeMounts[0].subPath" in fault


@pytest.mark.parametrize("kind", ["ConfigMap", "Secret"])
@pytest.mark.parametrize("key", ["../../X", "/X", "..", ".", "..X", "a/b", "x" * 254, ""])
def test_a_key_is_a_file_name(kind: str, key: str, tmp_path: Path) -> None:
    """A mounted object has a file for each key, so a key that is not a plain name is refused."""
    field = {"ConfigMap": ["data", "binaryData"], "Secret": ["data", "stringData"]}[kind]
    for name in field:
        body = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "c"}, name: {key: "WFg="}}
        (fault,) = found(json.dumps(body), tmp_path)
        assert f"{kind} c: {name}" in fault


@pytest.mark.parametrize("key", ["../../X", "/X"])
def test_nothing_is_written_outside_a_volume_even_unchecked(key: str, tmp_path: Path) -> None:
    """The writer refuses a path that leads out of the volume even if the manifest was not validated."""
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {key: "text"}}
    pod = {
        "containers": [{"image": "x", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        "volumes": [{"name": "v", "configMap": {"name": "c"}}],
    }
    with pytest.raises(ManifestError, match="outside"):
        Configuration([Resource(body, "f")]).materialise(Template.from_body({"spec": pod}), tmp_path / "a/b/c")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["../../x", "a/b", "", "x" * 64])
def test_a_namespace_is_a_label(name: str, tmp_path: Path) -> None:
    """A namespace that is not a DNS label is refused, because files of Envoy have the namespace in their names."""
    text = (
        f"{{apiVersion: serving.knative.dev/v1, kind: Service, metadata: {{name: a, namespace: {json.dumps(name)}}}}}"
    )
    assert any("metadata.namespace" in fault for fault in found(text, tmp_path))


@pytest.mark.parametrize(
    ("field", "entry"),
    [
        ("configMapGenerator", {"name": "c", "files": ["../outside.txt"]}),
        ("configMapGenerator", {"name": "c", "files": ["k=/etc/hostname"]}),
        ("secretGenerator", {"name": "c", "files": ["link.txt"]}),
        ("configMapGenerator", {"name": "c", "files": ["pipe"]}),
        ("patches", {"target": {"kind": "ConfigMap"}, "path": "../outside.txt"}),
        ("configurations", "../outside.txt"),
        ("resources", "../outside.yaml"),
        ("resources", "link.yaml"),
    ],
)
def test_a_kustomization_reads_only_files_below_itself(field: str, entry: Any, tmp_path: Path) -> None:
    """As kustomize's load restrictor: no `..`, no absolute path, no link that leads out, no pipe that never ends."""
    own = tmp_path / "own"
    own.mkdir()
    (tmp_path / "outside.txt").write_text("[]")
    (tmp_path / "outside.yaml").write_text("{apiVersion: v1, kind: ConfigMap, metadata: {name: outside}}")
    for suffix in ("txt", "yaml"):
        (own / f"link.{suffix}").symlink_to(f"../outside.{suffix}")
    os.mkfifo(own / "pipe")
    (own / "kustomization.yaml").write_text(json.dumps({field: [entry]}))
    with pytest.raises(ManifestError, match="kustomization.yaml: .*(is not in or below|No such file)"):
        load(own)


def test_a_kustomization_that_includes_itself_is_refused(tmp_path: Path) -> None:
    """Directly, over another one, by what holds it, and as a component."""
    for field, inner, outer in (
        ("resources", ".", "./"),
        ("resources", "../b", "../a"),
        ("resources", "..", "a"),
        ("components", "../b", "../a"),
    ):
        case = tmp_path / f"{field}{inner.replace('/', '-')}"
        for name, entry in (("a", inner), ("b", outer)):
            (case / name).mkdir(parents=True)
            (case / name / "kustomization.yaml").write_text(json.dumps({field: [entry]}))
        (case / "kustomization.yaml").write_text(json.dumps({field: ["a"]}))
        with pytest.raises(ManifestError, match="includes itself") as refused:
            load(case / "a")
        assert len(refused.value.faults) == 1


def test_kustomizations_that_double_each_other_are_refused(tmp_path: Path) -> None:
    """Thirty small files that each include the next one twice would be read a billion times."""
    for number in range(30):
        for name in (f"{number}a", f"{number}b"):
            (tmp_path / name).mkdir()
            following = [f"../{number + 1}a", f"../{number + 1}b"] if number < 29 else []
            (tmp_path / name / "kustomization.yaml").write_text(json.dumps({"resources": following}))
    with pytest.raises(ManifestError, match="more than 1000 kustomizations"):
        load(tmp_path / "0a")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BOMB, "more than 100000 nodes with its aliases written out"),
        ("a: &a [*a]", "an alias stands for what contains it"),
        ("a: &a {b: *a}", "an alias stands for what contains it"),
        ("[" * 5000, "is nested too deeply: 100 brackets are open"),
        ("- " * 5000, "is nested too deeply"),
        ("a: " + "9" * 5000, "digits"),
        ("a: !!timestamp 2026-99-99", "!!timestamp is not understood here"),
        ("a: !!binary eA==", "!!binary is not understood here"),
        ("a: !!set {b}", "!!set is not understood here"),
        ("a: .nan", "is not a finite number"),
        ("a: 1\na: 2", "key 'a' is given twice"),
        ("? [a]\n: b", "a key must be text"),
        ("a: !!python/object/apply:os.system [id]", "is not understood here"),
        ("a: \ud800".encode("utf-8", "surrogatepass").decode("latin-1"), "special characters"),
    ],
)
def test_yaml_that_means_harm_is_one_sentence(text: str, reason: str, tmp_path: Path) -> None:
    """An alias bomb, a structure that contains itself, and tags beyond JSON are refused before anything is built."""
    for name in ("manifest.yaml", "commands.yaml"):
        path = tmp_path / name
        path.write_text(text)
        with pytest.raises(ManifestError, match=reason) as refused:
            load(path) if name == "manifest.yaml" else Commands(path)
        (fault,) = refused.value.faults
        assert fault.startswith(str(path))
        assert "\n" not in fault
        assert len(fault) < 500


def test_a_hundred_brackets_are_read() -> None:
    """Objects of Kubernetes have far fewer levels than the reader takes."""
    assert str(parse_documents("[" * 100 + "]" * 100)) == f"[{'[' * 100}{']' * 100}]"


def test_an_alias_bomb_in_a_patch_is_refused(tmp_path: Path) -> None:
    """Every text that is read as YAML is read the same way."""
    (tmp_path / "kustomization.yaml").write_text(json.dumps({"patches": [{"target": {"kind": "X"}, "patch": BOMB}]}))
    with pytest.raises(ManifestError, match="more than 100000 nodes"):
        load(tmp_path)


def test_aliases_in_proportion_are_fine(tmp_path: Path) -> None:
    """Anchors, aliases and merge keys are everyday YAML."""
    text = "{apiVersion: v1, kind: ConfigMap, metadata: &m {name: c}, x: *m, y: {<<: *m, z: 1}, 5: five, true: yes}"
    path = tmp_path / "manifest.yaml"
    path.write_text(text)
    (resource,) = load(path)
    assert resource.body["y"] == {"name": "c", "z": 1}
    assert (resource.body["5"], resource.body["true"]) == ("five", True)


@pytest.mark.parametrize(
    "text",
    [
        "[]", "5", "{apiVersion: 5, kind: 6, metadata: 7}", "{apiVersion: v1, kind: List, items: 5}",
        "{apiVersion: v1, kind: List}", "{apiVersion: v1, kind: List, items: [1]}", "{apiVersion: v1, kind: X, metadata: [a]}",
    ],
)  # fmt: skip
def test_a_document_that_is_no_object_is_one_sentence(text: str, tmp_path: Path) -> None:
    """Its file is named."""
    path = tmp_path / "manifest.yaml"
    path.write_text(text)
    with pytest.raises(ManifestError) as refused:
        load(path)
    assert len(refused.value.faults) == 1


@pytest.mark.parametrize(
    "text", ["[]", "{root: 5}", "{images: [a]}", "{images: {a: 5}}", "{images: {a: {command: [x], env: 5}}}"]
)
def test_a_file_of_commands_that_is_none_is_one_sentence(text: str, tmp_path: Path) -> None:
    """The field is named."""
    path = tmp_path / "commands.yaml"
    path.write_text(text)
    with pytest.raises(ManifestError, match="commands.yaml: "):
        Commands(path)


DOCUMENTS = [d for name in ("services.yaml", "events.yaml") for d in yaml.safe_load_all((SAMPLE / name).read_text())]
DOCUMENTS.append({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"K": "WFg="}})
JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-1, 2**70), st.text(max_size=3), st.just([]), st.just({}), st.just([{}]),
    st.just({"": ""}), st.just("../../x"), st.just([None]), st.just({"a": {"b": {}}}), st.just("9" * 300), st.just("~-x"),
)  # fmt: skip


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_mutated_manifests_are_taken_or_refused_never_more(data: st.DataObject) -> None:
    """One to three places of valid objects hold something else: there is a list of faults, or a platform could start."""
    documents = copy.deepcopy(DOCUMENTS)
    for _ in range(data.draw(st.integers(1, 3))):
        node: Any = data.draw(st.sampled_from(documents))
        while isinstance(node, (dict, list)) and node:
            key = data.draw(st.sampled_from(list(node) if isinstance(node, dict) else range(len(node))))
            if not isinstance(node[key], (dict, list)) or not node[key] or data.draw(st.integers(0, 3)) == 0:
                node[key] = copy.deepcopy(data.draw(JUNK))
                break
            node = node[key]
    try:
        resources = [Resource.read(document, "f") for document in documents]
        if not [fault for resource in resources for fault in faults(resource)]:
            bind_sinks(resources)
            routing(resources)
            configuration = Configuration(resources)
            for resource in resources:
                if resource.is_service:
                    template = Template.from_body(resource.body["spec"]["template"])
                    list(configuration.missing(template))
    except ManifestError as refused:
        assert refused.faults


@pytest.mark.parametrize("text", [BOMB, "a: &a [*a]", "{apiVersion: v1, kind: X, metadata: [a]}"])
def test_up_says_it_in_one_line(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No traceback, no platform, exit status 1."""
    monkeypatch.chdir(tmp_path)
    Path("manifest.yaml").write_text(text)
    commands = str(SAMPLE / "commands.yaml")
    words = ["--manifests", "manifest.yaml", "--commands", commands, "--state-dir", "s", "--port", str(free_port())]
    assert main(["up", *words]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
