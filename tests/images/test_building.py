"""Building images: what the builder is told, and what gets into them."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.knative.objects import ROOT
from tools.images import __main__ as images
from tools.images import install, prove
from tools.images.assemble import configure, libraries, place
from tools.images.building import Builder, BuildError, find_builder, local_paths
from tools.images.running import unpacked

needs_buildah = pytest.mark.skipif(
    not shutil.which("buildah") or os.geteuid() != 0, reason="buildah is not installed, or this is not root"
)


@pytest.fixture
def podman(tmp_path, monkeypatch):
    """A podman that writes down what it is told, and works unless told to build `broken`."""
    told = tmp_path / "told"
    program = tmp_path / "bin/podman"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >>{told}\ncase "$*" in *broken*) exit 1;; esac\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setattr("tools.images.building.pip_settings", dict)
    return lambda: told.read_text().splitlines()


def test_all_images_are_built_as_the_manifests_name_them(podman, capsys):
    """Without arguments: what overlays/dev runs, with any base handed in, with what follows -- for the builder."""
    assert images.main(["--builder", "podman", "--base", "local/base", "--", "--isolation", "chroot"]) == 0
    _, *builds = podman()
    names = ["extract-features", "rank-items", "recommend", "offline", "redis"]
    assert [words.split("--tag ")[1].split()[0] for words in builds] == [f"dev.local/{name}:dev" for name in names]
    assert all("--build-arg BASE=local/base" in words and f"--isolation chroot {ROOT}" in words for words in builds)
    assert capsys.readouterr().out.split() == [f"dev.local/{name}:dev" for name in names]


def test_a_model_is_baked_into_an_image_named_after_it(podman, capsys, tmp_path):
    """On top of the plain one; the artefact's folder is the context."""
    (tmp_path / "manifest.json").write_text(json.dumps({"version": "abc"}))
    assert images.main(["rank-items", "--builder", "podman", "--tag", "v1", "--model", str(tmp_path)]) == 0
    assert capsys.readouterr().out.split() == ["dev.local/rank-items:v1", "dev.local/rank-items:v1-abc"]
    last = podman()[-1]
    assert "--build-arg IMAGE=dev.local/rank-items:v1 --build-arg MODEL_VERSION=abc" in last
    assert last.endswith(str(tmp_path))


def test_what_cannot_be_built_is_said(podman, capsys, tmp_path):
    """The builder's failure, a folder without a model, an image there is not, a builder that is not there."""
    assert images.main(["redis", "--builder", "podman", "--tag", "broken"]) == 1
    assert "could not be built with podman" in capsys.readouterr().err
    assert images.main(["redis", "--builder", "podman", "--model", str(tmp_path)]) == 1
    assert "holds no model artefact" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        images.main(["nothing"])
    with pytest.raises(BuildError, match="buildah is needed"):
        find_builder("buildah" if not shutil.which("buildah") else "docker-that-is-not-there-buildah")


def test_pip_in_the_build_reaches_what_pip_reaches_here(podman, monkeypatch, tmp_path):
    """Its settings as a secret, folders of packages as volumes; nothing of either is in an image."""
    settings = {"find-links": str(tmp_path), "index-url": "https://packages.example.com/simple"}
    monkeypatch.setattr("tools.images.building.pip_settings", lambda: settings)
    Builder("podman").build(Path("Dockerfile"), context=tmp_path, image="x", arguments={})
    assert "--secret id=pip,src=" in podman()[-1]
    assert f"--volume {tmp_path}:{tmp_path}:ro" in podman()[-1]
    assert list(local_paths({"index-url": f"file://{tmp_path}/nowhere"})) == []


def test_a_program_is_gathered_with_all_it_is_linked_with(tmp_path):
    """Links and all; nothing refers to anything outside; a user, and a place to write."""
    root = tmp_path / "root"
    program = Path(shutil.which("env") or "/usr/bin/env")
    found = libraries([program], root=root)
    for path in (program, *found):
        place(path, root)
    configure(root)
    inside = {str(path.relative_to(root)) for path in root.rglob("*")}
    assert str(program.resolve().relative_to("/")) in inside
    assert all(str(path.resolve().relative_to("/")) in inside for path in found)
    assert "nonroot:x:65532" in (root / "etc/passwd").read_text()
    assert stat.S_IMODE((root / "tmp").stat().st_mode) == 0o1777


def test_pip_is_found_where_there_is_one(monkeypatch):
    """The base's own, else one made, else none: a base without anything is refused with what to hand in."""
    assert install.find_pip() == [sys.executable, "-m", "pip"]
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert install.find_pip() is None
    assert install.main("/nowhere", []) == 1


def test_a_proof_that_is_impossible_says_why(monkeypatch, capsys):
    """Which tool is missing, and how it is had."""
    monkeypatch.setattr("shutil.which", lambda tool: None if tool == "buildah" else tool)
    assert prove.main([]) == 0
    assert "skipped: buildah not installed" in capsys.readouterr().out


@needs_buildah
def test_buildah_builds_what_is_unpacked_again(tmp_path, monkeypatch):
    """The way from a Dockerfile to files, command, user and labels, with a real builder and an image of one file."""
    # Needs nothing of the kernel, so it works inside containers too.
    monkeypatch.setenv("STORAGE_DRIVER", "vfs")
    (tmp_path / "Dockerfile").write_text(
        'FROM scratch\nARG VERSION\nCOPY hello /bin/hello\nLABEL org.opencontainers.image.title="tiny:${VERSION}"\n'
        'ENV PATH=/bin\nWORKDIR /\nUSER 65532:65532\nCMD ["hello"]\n'
    )
    (tmp_path / "hello").write_text("#!/bin/hello\n")
    tag = f"localhost/recsys-test:{os.getpid()}"
    builder = Builder("buildah", ("--isolation", "chroot", "--quiet"))
    builder.build(tmp_path / "Dockerfile", context=tmp_path, image=tag, arguments={"VERSION": "1"})
    try:
        with unpacked(tag) as image:
            assert (image.root / "bin/hello").read_text() == "#!/bin/hello\n"
            assert (image.command, image.user, image.labels["org.opencontainers.image.title"]) == (
                ["hello"], "65532:65532", "tiny:1",
            )  # fmt: skip
            assert prove.unwanted(image) == []
            (image.root / "bin/sh").write_text("")
            assert prove.unwanted(image) == ["bin/sh"]
    finally:
        subprocess.run(["buildah", "rmi", tag], check=True, capture_output=True)
