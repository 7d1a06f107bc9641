"""Checks of the Dockerfiles without building them; `./run.sh prove-images` builds and runs the images."""

import fnmatch
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.knative.objects import ON_CLUSTERS, ROOT, container, overlay, services
from tools.images.builder import IMAGES

# The images that install the lock file with their name; the others install none or serve something else.
LOCKS = {"extract-features", "rank-items", "recommend", "fused", "offline"}


def instructions(path: Path) -> list[tuple[str, str]]:
    """Return each instruction with its arguments, with lines joined and the default lock file filled in."""
    text = re.sub(r"\\\n", "", path.read_text())
    defaults = dict(re.findall(r"^ARG (LOCK)=(\S+)$", text, flags=re.MULTILINE))
    text = text.replace("${LOCK}", defaults.get("LOCK", ""))
    found = [line.split(None, 1) for line in text.splitlines() if line and not line.startswith("#")]
    return [(name, rest) for name, rest in found]


def final_stage(path: Path) -> list[tuple[str, str]]:
    whole = instructions(path)
    last = max(index for index, (name, _) in enumerate(whole) if name == "FROM")
    return whole[last:]


def sources(path: Path) -> Iterator[str]:
    """Yield the paths that a Dockerfile copies from the build context."""
    for name, rest in instructions(path):
        if name == "COPY" and not rest.startswith("--from"):
            yield from rest.split()[:-1]


@pytest.fixture(params=IMAGES)
def dockerfile(request: pytest.FixtureRequest) -> tuple[str, Path]:
    return request.param, ROOT / IMAGES[request.param]


def test_the_base_is_an_argument(dockerfile):
    """The base image is an argument of the build and the only image that is pulled."""
    _, path = dockerfile
    first = instructions(path)[0]
    assert first[0] == "ARG"
    assert first[1].startswith("BASE=")
    assert {rest.split()[0] for name, rest in instructions(path) if name == "FROM"} <= {
        "${BASE}",
        "${BUILD_BASE}",
        "scratch",
    }


def test_the_final_stage_holds_only_the_assembled_files(dockerfile):
    """
    The stage copies one root into scratch and runs nothing; it has a numeric user, an exec-form command and labels.
    """
    name, path = dockerfile
    stage = final_stage(path)
    said = dict(stage)
    assert said["FROM"] == "scratch"
    assert [rest for each, rest in stage if each == "COPY"] == ["--from=build /rootfs /"]
    assert not {"RUN", "ADD", "SHELL", "ENTRYPOINT"} & said.keys()
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", said["USER"])
    assert json.loads(said["CMD"])
    assert f'org.opencontainers.image.title="{name}"' in said["LABEL"]
    for label in ("description", "version", "revision"):
        assert f"org.opencontainers.image.{label}=" in said["LABEL"]


@pytest.mark.parametrize("name", sorted(LOCKS & IMAGES.keys()))
def test_an_image_installs_its_own_lock_with_hashes(name):
    """An image installs the packages of one function, wheels only, each checked by its hash."""
    copied = [source for source in sources(ROOT / IMAGES[name]) if source.startswith("requirements/")]
    assert copied == [f"requirements/{name}.txt"]
    (command,) = [rest for each, rest in instructions(ROOT / IMAGES[name]) if each == "RUN" and "install.py" in rest]
    assert command.endswith((f'"{name}.txt"]', '"requirements.txt"]'))
    flags = (ROOT / "tools/images/install.py").read_text()
    assert all(flag in flags for flag in ("--require-hashes", "--only-binary=:all:", "--no-deps"))
    assert "--hash=sha256:" in (ROOT / copied[0]).read_text()


def test_copied_files_are_in_the_build_context(dockerfile):
    """Every source exists, and .dockerignore admits it."""
    _, path = dockerfile
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "**"
    allowed = [rule[1:] for rule in rules if rule.startswith("!")]
    for source in sources(path):
        assert (ROOT / source).exists(), source
        files = list((ROOT / source).rglob("*.py")) or [ROOT / source]
        for file in files:
            inside = str(file.relative_to(ROOT))
            assert any(fnmatch.fnmatch(inside, rule.replace("/**", "/*")) for rule in allowed), inside


@pytest.mark.parametrize("name", ON_CLUSTERS)
def test_every_image_of_an_overlay_has_a_dockerfile(name):
    """Every image that an overlay uses can be built from this repository."""
    used = {container(service)["image"] for service in services(overlay(name)).values()}
    for body in overlay(name):
        if body["kind"] in {"Job", "StatefulSet"}:
            used |= {each["image"] for each in body["spec"]["template"]["spec"]["containers"]}
    assert {re.sub(r"[:@].*", "", image.rpartition("/")[2]) for image in used} <= IMAGES.keys()


def test_the_images_of_python_parts_are_built_in_the_same_way():
    """The Dockerfiles differ in names, lock file, copied folders and command only, so a change reaches all of them."""

    def shared(name: str) -> list[tuple[str, str]]:
        found = [
            (each, re.sub(r'image\.(title|description)="[^"]*"', r"image.\1", rest))
            for each, rest in instructions(ROOT / IMAGES[name])
            if not (each == "COPY" and not rest.startswith("--from")) and each != "CMD" and not rest.startswith("LOCK=")
        ]
        return [(each, re.sub(r'"(requirements|[a-z-]+)\.txt"', "LOCK", rest)) for each, rest in found]

    assert [name for name in LOCKS if shared(name) != shared("recommend")] == []


@pytest.mark.parametrize("name", sorted(LOCKS & IMAGES.keys()))
def test_an_image_contains_the_packages_that_its_program_imports(name):
    """The program of every image can be imported with the packages of its lock file alone."""
    stage = dict(final_stage(ROOT / IMAGES[name]))
    words = json.loads(stage["CMD"])
    programs = [words[words.index("-m") + 1], *(word.removesuffix(".py") for word in words if word.endswith(".py"))]
    lock = (ROOT / f"requirements/{name}.txt").read_text()
    locked = {_normal(each) for each in re.findall(r"^([\w.-]+)(?:\[.*\])?==", lock, flags=re.MULTILINE)}
    hidden = [
        module
        for module, owners in packages_distributions().items()
        if not {_normal(owner) for owner in owners} & locked and not (ROOT / "src" / module).exists()
    ]
    # A function that is imported without settings refuses them after its imports.
    code = """
import contextlib, importlib, sys
sys.modules.update(dict.fromkeys(sys.argv[1].split()))
from chassis.environment import SettingsError
for program in sys.argv[2:]:
    with contextlib.suppress(SettingsError):
        importlib.import_module(program.replace("/", "."))
"""
    command = [sys.executable, "-c", code, " ".join(hidden), *programs]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
