"""What an instance is given: variables, files, a command."""

import sys
from pathlib import Path

import pytest

from kubeyaml.errors import ManifestError
from localkn.commands import Commands
from localkn.environment import inherited, localised


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
