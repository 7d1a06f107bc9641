"""What an instance is given: variables, files, a command."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from localkn.commands import Commands
from localkn.environment import Configuration, expand, inherited, localised
from localkn.errors import ManifestError
from localkn.manifests import Resource
from localkn.templates import Template

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
    """Later definitions win, prefixes apply, references may be optional."""
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


def test_what_is_missing_is_named() -> None:
    """Every object and entry that is needed and not in the manifests."""
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
    """One directory each; all entries, or those that are listed, under their paths."""
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


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("http://rank.default.svc.cluster.local", "http://127.0.0.1:7"),
        ("http://rank.default.svc.cluster.local:80/x?y", "http://127.0.0.1:7/x?y"),
        ("a=http://rank.default,b=http://rank.default/", "a=http://127.0.0.1:7,b=http://127.0.0.1:7/"),
        ("http://rank.default:8080/", "http://rank.default:8080/"),
        ("http://rank.default.example.com", "http://rank.default.example.com"),
        ("https://rank.default", "https://rank.default"),
        ("/models", "/here"),
        ("/models/a/b", "/here/a/b"),
        ("/models2", "/models2"),
        ("see /models", "see /models"),
    ],
)
def test_values_are_put_in_terms_of_this_machine(value: str, expected: str) -> None:
    """URLs of known Services wherever they are, a mountPath at the beginning only."""
    addresses = {"rank.default": 7, "rank.default.svc.cluster.local": 7}
    assert localised(value, addresses=addresses, places={"/models": Path("/here")}) == expected


def test_only_what_a_command_needs_is_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller's other variables do not leak into instances."""
    monkeypatch.setenv("PYTHONPATH", "x")
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("FEATURE_STORE_URL", "redis://elsewhere")
    assert {"PATH", "PYTHONPATH", "LC_ALL"} <= set(inherited())
    assert "FEATURE_STORE_URL" not in inherited()
    assert expand("$(A)$(B)", {"A": "1"}) == "1$(B)"


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    """A mapping with an entry of each kind of name."""
    (tmp_path / "c.yaml").write_text("""
    root: sub
    images:
      ghcr.io/acme/rank@sha256:12: {command: [digest]}
      localhost:5000/acme/rank: {command: [no-tag]}
      rank: {command: [python, -m, rank, 7], env: {N: 1}}
    """)
    return Commands(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("image", "command"),
    [
        ("ghcr.io/acme/rank@sha256:12", "digest"),
        ("localhost:5000/acme/rank:v3", "no-tag"),
        ("localhost:5000/acme/rank:v3@sha256:99", "no-tag"),
        ("ghcr.io/acme/rank@sha256:13", sys.executable),
        ("rank", sys.executable),
    ],
)
def test_images_are_looked_up_from_exact_to_bare(commands: Commands, image: str, command: str) -> None:
    """As written, then without tag and digest, then by the last part; `python` is this interpreter."""
    assert commands.find(image).argv[0] == command


def test_a_command_runs_where_the_file_says(commands: Commands, tmp_path: Path) -> None:
    """`root` is relative to the file; words and values are text."""
    found = commands.find("rank")
    assert (found.directory, found.argv[1:], found.env) == (tmp_path / "sub", ["-m", "rank", "7"], {"N": "1"})
    (tmp_path / "d.yaml").write_text("images: {x: {command: [y]}}")
    assert Commands(tmp_path / "d.yaml").find("x").directory == Path.cwd()


def test_an_image_without_command_is_named(commands: Commands, tmp_path: Path) -> None:
    """And what there is instead."""
    with pytest.raises(ManifestError, match=r"no command for image other:v1 \(there are: .*rank"):
        commands.find("other:v1")
    (tmp_path / "c.yaml").write_text("images: {x: {command: run}}")
    with pytest.raises(ManifestError, match=r"images.x.command: must be a list"):
        Commands(tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_text("")
    with pytest.raises(ManifestError, match="there are: none"):
        Commands(tmp_path / "c.yaml").find("x")
