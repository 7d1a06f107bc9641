"""Image builds: the builder's arguments and the files in the images."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.knative.objects import ROOT
from tools.cli.verbs import main
from tools.images import install, prove
from tools.images.assemble import configure, libraries, place
from tools.images.builder import DESTINATIONS, Builder, BuildError, find_builder, local_paths
from tools.images.sandbox import unpacked

needs_buildah = pytest.mark.skipif(
    not shutil.which("buildah") or os.geteuid() != 0, reason="buildah is not installed, or this is not root"
)


@pytest.fixture
def podman(tmp_path, monkeypatch):
    """Install a podman that records its arguments and fails only to build `broken`."""
    told = tmp_path / "told"
    program = tmp_path / "bin/podman"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$@" >>{told}\ncase "$*" in *broken*) exit 1;; esac\n'
        '[ "$2" = --digestfile ] && echo sha256:0a1b >"$3" || true\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setattr("tools.images.builder.pip_settings", dict)
    return lambda: told.read_text().splitlines()


def test_all_images_are_built_under_the_manifests_names(podman, capsys):
    """
    By default the tool builds the images of the overlays, with the given base and the words after -- for the builder.
    """
    assert main(["images", "--builder", "podman", "--base", "local/base", "--", "--isolation", "chroot"]) == 0
    _, *builds = podman()
    names = ["extract-features", "rank-items", "recommend", "fused", "offline", "redis"]
    assert [words.split("--tag ")[1].split()[0] for words in builds] == [f"dev.local/{name}:dev" for name in names]
    assert all("--build-arg BASE=local/base" in words and f"--isolation chroot {ROOT}" in words for words in builds)
    assert capsys.readouterr().out.split() == [f"dev.local/{name}:dev" for name in names]


def test_a_model_image_is_named_after_its_model(podman, capsys, tmp_path):
    """The model image is built on the plain one, with the artefact's folder as its context."""
    (tmp_path / "manifest.json").write_text(json.dumps({"version": "abc"}))
    assert main(["images", "rank-items", "--builder", "podman", "--tag", "v1", "--model", str(tmp_path)]) == 0
    assert capsys.readouterr().out.split() == ["dev.local/rank-items:v1", "dev.local/rank-items:v1-abc"]
    last = podman()[-1]
    assert "--build-arg IMAGE=dev.local/rank-items:v1 --build-arg MODEL_VERSION=abc" in last
    assert last.endswith(str(tmp_path))


@pytest.mark.parametrize("to", sorted({*DESTINATIONS} - {"registry"}))
def test_images_are_loaded_into_the_nodes(podman, monkeypatch, tmp_path, to):
    """The builder writes an archive of every image, and the program of the cluster loads it; a failure is an error."""
    fake = Path(shutil.which("podman") or "")
    program = fake.with_name(DESTINATIONS[to][0])
    program.symlink_to(fake)
    assert main(["images", "redis", "rank-items", "--builder", "podman", "--to", to]) == 0
    saved, loaded, *others = [line for line in podman() if "save" in line.split()[:1] or "image.tar" in line]
    archive = loaded.split()[-1]
    assert saved == f"save --output {archive} dev.local/redis:dev"
    assert loaded == " ".join([*DESTINATIONS[to][1:], archive])
    assert others[0].endswith("dev.local/rank-items:dev")
    program.unlink()
    assert main(["images", "redis", "--builder", "podman", "--to", to]) == 1


def test_images_are_pushed_to_their_registry(podman, capsys):
    """With --to registry, the builder pushes each image under its full name, and the output has the digests."""
    words = ["--builder", "podman", "--prefix", "r.test:5000/x", "--to", "registry"]
    assert main(["images", "redis", "rank-items", *words]) == 0
    first, second = [line for line in podman() if line.startswith("push ")]
    assert (first.split()[-1], second.split()[-1]) == ("r.test:5000/x/redis:dev", "r.test:5000/x/rank-items:dev")
    names = [f"r.test:5000/x/{name}@sha256:0a1b" for name in ("redis", "rank-items")]
    assert capsys.readouterr().out.split() == names


def test_docker_tells_the_digest_after_the_push(monkeypatch):
    """docker knows an image by several names; the digest is that of the name that was pushed."""
    known = ["other.test/x/redis@sha256:ff", "r.test/x/redis@sha256:0a1b"]
    monkeypatch.setattr("tools.images.builder._run", lambda *_: None)
    done = subprocess.CompletedProcess([], 0, json.dumps(known))
    monkeypatch.setattr("tools.images.builder.subprocess.run", lambda *_, **__: done)
    assert Builder("docker").deliver("r.test/x/redis:v1", "registry") == "r.test/x/redis@sha256:0a1b"
    with pytest.raises(BuildError, match="r.test/x/recommend:v1 is pushed, but docker does not name its digest"):
        Builder("docker").deliver("r.test/x/recommend:v1", "registry")


def test_buildah_writes_archives_that_contain_the_name(podman, monkeypatch):
    """buildah has no `save`, so it pushes the image to an archive, with the name that the manifests use."""
    commands = []
    monkeypatch.setattr("tools.images.builder._run", lambda command, _: commands.append(command))
    Builder("buildah").deliver("dev.local/redis:dev", "kind")
    archive = commands[1][-1]
    assert commands[0] == ["buildah", "push", "dev.local/redis:dev", f"docker-archive:{archive}:dev.local/redis:dev"]


def test_a_base_is_made_of_debian_packages(monkeypatch):
    """`--base debootstrap` makes the base, and builds on it with the builder that has it."""
    built = []
    monkeypatch.setattr("tools.images.verb.make_base", lambda suite: f"localhost/base:{suite}")
    monkeypatch.setattr("tools.images.verb.find_builder", Builder)
    monkeypatch.setattr(
        Builder, "build", lambda self, _, **given: built.append((self.name, given["arguments"]["BASE"]))
    )
    assert main(["images", "redis", "--base", "debootstrap"]) == 0
    assert built == [("buildah", "localhost/base:stable")]


def test_another_builder_does_not_have_the_base_of_debootstrap(capsys):
    """`--base debootstrap` refuses a builder that could not find the base."""
    assert main(["images", "redis", "--base", "debootstrap", "--builder", "docker"]) == 2
    assert "--base debootstrap: docker does not have this base" in capsys.readouterr().err


def test_build_failures_are_reported(podman, capsys, tmp_path):
    """A failed build, a folder without a model, an unknown image and a missing builder are errors."""
    assert main(["images", "redis", "--builder", "podman", "--tag", "broken"]) == 1
    assert "podman cannot build dev.local/redis:broken" in capsys.readouterr().err
    before = len(podman())
    assert main(["images", "redis", "--builder", "podman", "--model", str(tmp_path)]) == 1
    assert "holds no model artefact" in capsys.readouterr().err
    assert len(podman()) == before  # the model is looked for before anything is built
    assert main(["images", "nothing"]) == 2
    with pytest.raises(BuildError, match="install and start .*buildah"):
        find_builder("buildah" if not shutil.which("buildah") else "docker-that-is-not-there-buildah")


def test_pip_in_a_build_uses_the_local_settings(podman, monkeypatch, tmp_path):
    """The settings are passed as a secret and package folders as volumes, so neither ends up in an image."""
    settings = {"find-links": str(tmp_path), "index-url": "https://packages.example.com/simple"}
    monkeypatch.setattr("tools.images.builder.pip_settings", lambda: settings)
    Builder("podman").build(Path("Dockerfile"), context=tmp_path, image="x", arguments={})
    assert "--secret id=pip,src=" in podman()[-1]
    assert f"--volume {tmp_path}:{tmp_path}:ro" in podman()[-1]
    assert list(local_paths({"index-url": f"file://{tmp_path}/nowhere"})) == []


def test_a_program_is_collected_with_its_libraries(tmp_path):
    """The root contains the program, its libraries, a user and a writable /tmp."""
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


def test_pip_is_found_if_the_base_has_it(monkeypatch):
    """The search returns the base's own pip, or none; a base without pip is an error."""
    assert install.find_pip() == [sys.executable, "-m", "pip"]
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert install.find_pip() is None
    assert install.main("/nowhere", []) == 1


def test_an_impossible_proof_is_skipped_with_a_reason(monkeypatch, capsys):
    """The output names the missing tool."""
    monkeypatch.setattr("shutil.which", lambda tool: None if tool == "buildah" else tool)
    assert main(["prove-images"]) == 0
    assert "skipped: buildah not installed" in capsys.readouterr().out


@needs_buildah
def test_an_image_built_by_buildah_can_be_unpacked(tmp_path, monkeypatch):
    """A real build of a one-file image keeps its files, command, user and labels."""
    # This driver needs no kernel support, so it also works inside containers.
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


@needs_buildah
@pytest.mark.parametrize("own", [[], ["ranker.model", "encoder.model"]])
def test_the_image_with_a_model_has_the_files_of_its_own_ranker_and_encoder(tmp_path, monkeypatch, own):
    """Dockerfile.model copies these files if the artefact has them."""
    monkeypatch.setenv("STORAGE_DRIVER", "vfs")
    (tmp_path / "Dockerfile").write_text(
        'FROM scratch\nENV PATH=/bin\nWORKDIR /\nUSER 1:1\nCMD ["hello"]\nCOPY code /\n'
    )
    model = tmp_path / "model"
    model.mkdir()
    files = {"manifest.json", "arrays.safetensors", "items.json", *own}
    for name in files:
        (model / name).write_text(name)
    (tmp_path / "code").write_text("code")
    tags = [f"localhost/recsys-test-{part}:{os.getpid()}" for part in ("code", "model")]
    builder = Builder("buildah", ("--isolation", "chroot", "--quiet"))
    builder.build(tmp_path / "Dockerfile", context=tmp_path, image=tags[0], arguments={})
    dockerfile, arguments = ROOT / "functions/rank_items/Dockerfile.model", {"IMAGE": tags[0], "MODEL_VERSION": "1"}
    builder.build(dockerfile, context=model, image=tags[1], arguments=arguments)
    try:
        with unpacked(tags[1]) as image:
            assert {each.name for each in (image.root / "models").iterdir()} == files
    finally:
        subprocess.run(["buildah", "rmi", *tags], check=True, capture_output=True)


def test_a_library_that_wheels_lack_is_found_by_the_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A library counts as missing if `ldd` does not find it; a program with all its libraries misses none."""
    assert install.missing([Path(sys.executable)]) == []
    ldd = tmp_path / "ldd"
    ldd.write_text("#!/bin/sh\necho 'libgomp.so.1 => not found'\n")
    ldd.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert install.missing([Path("lib_lightgbm.so")]) == ["libgomp.so.1"]


@pytest.mark.parametrize(("works", "status"), [(True, 0), (False, 1)])
def test_a_missing_library_is_installed_or_named(works, status, monkeypatch: pytest.MonkeyPatch, capfd):
    """The package of the library is installed; without a package manager, the build fails and names the library."""
    installed: list[str] = []

    def add(*packages: str) -> bool:
        installed.extend(packages)
        return bool(works)

    monkeypatch.setattr(install, "find_pip", lambda: ["true"])
    monkeypatch.setattr(install, "missing", lambda _: ["libgomp.so.1"])
    monkeypatch.setattr(install, "install_packages", add)
    assert install.main("lib", ["offline.txt"]) == status
    assert installed == ["libgomp1"]
    assert ("libgomp.so.1" in capfd.readouterr().err) == (status == 1)
