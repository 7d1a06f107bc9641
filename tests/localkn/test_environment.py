"""The variables, files and command of an instance."""

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
def test_values_are_translated_to_this_machine(value: str, expected: str) -> None:
    """URLs of known Services are replaced anywhere in a value, and a mountPath only at its start."""
    addresses = {"rank.default": 7, "rank.default.svc.cluster.local": 7}
    assert localised(value, addresses=addresses, places={"/models": Path("/here")}) == expected


def test_only_necessary_variables_are_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other variables of the caller do not reach the instances."""
    monkeypatch.setenv("PYTHONPATH", "x")
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("FEATURE_STORE_URL", "redis://elsewhere")
    assert {"PATH", "PYTHONPATH", "LC_ALL"} <= set(inherited())
    assert "FEATURE_STORE_URL" not in inherited()


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    """Write a mapping with an entry of each kind of name."""
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
def test_images_are_looked_up_from_exact_to_short_names(commands: Commands, image: str, command: str) -> None:
    """The lookup tries the full name, the name without tag and digest, and its last part, in this order."""
    assert commands.find(image).argv[0] == command


def test_a_command_runs_in_its_root_directory(commands: Commands, tmp_path: Path) -> None:
    """`root` is relative to the file; arguments and values are converted to text."""
    found = commands.find("rank")
    assert (found.directory, found.argv[1:], found.env) == (tmp_path / "sub", ["-m", "rank", "7"], {"N": "1"})
    (tmp_path / "d.yaml").write_text("images: {x: {command: [y]}}")
    assert Commands(tmp_path / "d.yaml").find("x").directory == Path.cwd()


def test_an_image_without_a_command_is_an_error(commands: Commands, tmp_path: Path) -> None:
    """The error lists the images that have a command."""
    with pytest.raises(ManifestError, match=r"no command for image other:v1 \(the file has: .*rank"):
        commands.find("other:v1")
    (tmp_path / "c.yaml").write_text("images: {x: {command: run}}")
    with pytest.raises(ManifestError, match=r"images.x.command: must be a list"):
        Commands(tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_text("")
    with pytest.raises(ManifestError, match="the file has: none"):
        Commands(tmp_path / "c.yaml").find("x")
