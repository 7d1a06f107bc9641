"""
`./run.sh prove-images`: show that the images are what they claim to be.

Makes a base with debootstrap, builds the images on it with buildah, looks for what must not be in them, runs each with
its root read-only and not as root, and sends recommend a request that goes through all three. Prints a table; exit
status 1 where a claim does not hold, 0 with the reason where a tool or root is missing.
"""

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.images.building import IMAGES, ROOT, Builder, BuildError
from tools.images.running import Image, post, running, unpacked

FUNCTIONS = ("extract-features", "rank-items", "recommend")
TOOLS = ("buildah", "debootstrap", "unshare", "setpriv")
_BASE = "localhost/recsys-base:debootstrap"
_PREFIX = "localhost/recsys"

# What whoever gets in would like to find.
SHELLS = {"sh", "bash", "dash", "ash", "zsh", "busybox"}
INSTALLERS = {"pip", "pip3", "apt", "apt-get", "dpkg", "ensurepip"}
COMPILERS = {"gcc", "cc", "g++", "clang", "ld", "as", "make", "cpp"}


@dataclass(frozen=True)
class Finding:
    """What an image turned out to be."""

    name: str
    megabytes: float
    start_s: float
    uncompiled_start_s: float
    unwanted: Sequence[str]


def main(words: Sequence[str] | None = None) -> int:
    """Prove it; return the exit status."""
    parser = argparse.ArgumentParser(prog="./run.sh prove-images", description=__doc__)
    parser.add_argument("--base", help="image to build on, instead of one made with debootstrap")
    parser.add_argument("--suite", default="stable", help="Debian's suite for debootstrap (%(default)s)")
    parser.add_argument("--state-dir", type=Path, default=ROOT / ".recsys", help="whose model rank-items gets")
    options = parser.parse_args(words)
    if reason := missing():
        print(f"skipped: {reason}")
        return 0
    try:
        findings = prove(options.base or make_base(options.suite), model=_model(options.state_dir))
    except (BuildError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    return report(findings)


def missing() -> str | None:
    """Say why nothing can be proved here; None where it can."""
    if absent := [tool for tool in TOOLS if not shutil.which(tool)]:
        return f"{', '.join(absent)} not installed (on Debian: apt-get install buildah debootstrap)"
    return None if os.geteuid() == 0 else "only root may mount and change roots"


def make_base(suite: str) -> str:
    """Return an image of Debian's smallest system with Python and what building a virtual environment takes."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        wanted = "--include=python3,python3-venv,ca-certificates"
        done = subprocess.run(
            ["debootstrap", "--variant=minbase", wanted, suite, f"{folder}/root"],  # noqa: S607
            check=False,
            stdout=subprocess.DEVNULL,
        )
        if done.returncode:
            raise BuildError("debootstrap made no base; the lines above say why")
        container = _buildah("from", "scratch")
        _buildah("add", "--quiet", container, f"{folder}/root", "/")
        _buildah("commit", "--quiet", "--rm", container, _BASE)
    return _BASE


def prove(base: str, *, model: Path) -> list[Finding]:
    """
    Build every function's image on *base* and look at it.

    Raises:
        BuildError, RuntimeError: an image cannot be built, or its program does not run.
    """
    builder = Builder("buildah", ("--isolation", "chroot"))
    with ExitStack() as stack:
        images = {}
        for name in FUNCTIONS:
            tag = f"{_PREFIX}/{name}:proof"
            builder.build(ROOT / IMAGES[name], context=ROOT, image=tag, arguments={"BASE": base})
            images[name] = stack.enter_context(unpacked(tag))
        shutil.copytree(model, images["rank-items"].root / "models")
        findings = [look_at(name, image) for name, image in images.items()]
        with pipeline(images) as port:
            answer = post(port, {"user_id": "user_42", "top_k": 3})
        if len(answer["recommendations"]) != 3 or answer.get("degraded"):
            raise RuntimeError(f"the pipeline answered {answer}")
        print(f"answered, non-root on read-only roots: {answer}")
    return findings


def look_at(name: str, image: Image) -> Finding:
    """Measure one image."""
    starts = [_start_s(name, image, {}) for _ in range(5)]
    # Where no bytecode is found, every module is compiled at the start.
    without = [_start_s(name, image, {"PYTHONPYCACHEPREFIX": "/tmp/none"}) for _ in range(3)]  # noqa: S108
    return Finding(
        name, image.size_bytes() / 1e6, statistics.median(starts), statistics.median(without), unwanted(image)
    )


def unwanted(image: Image) -> list[str]:
    """Return what is in the image and should not be, and what its configuration lacks."""
    found = [
        str(path.relative_to(image.root))
        for path in image.files()
        if path.name in SHELLS | INSTALLERS | COMPILERS and "site-packages" not in path.parts
    ]
    found += [str(path.relative_to(image.root)) for path in image.root.glob("**/pip/__init__.py")]
    if image.user.partition(":")[0] in {"", "0", "root"}:
        found.append("it runs as root")
    if not image.labels.get("org.opencontainers.image.title"):
        found.append("it has no OCI labels")
    return found


@contextmanager
def pipeline(images: Mapping[str, Image]) -> Iterator[int]:
    """Run all three, wired to each other; yield the public one's port."""
    ports = {name: _free_port() for name in images}
    with ExitStack() as stack:
        for name in FUNCTIONS:
            stack.enter_context(running(images[name], _env(name, ports), port=ports[name]))
        yield ports["recommend"]


def report(findings: Sequence[Finding]) -> int:
    """Print what was found; return the exit status."""
    print(
        f"{'image':<18}{'MB':>6}{'ready after s':>15}{'without .pyc':>14}   no shell, pip, compiler; non-root; labelled"
    )
    for each in findings:
        told = "holds" if not each.unwanted else "NOT: " + ", ".join(each.unwanted)
        print(f"{each.name:<18}{each.megabytes:>6.0f}{each.start_s:>15.2f}{each.uncompiled_start_s:>14.2f}   {told}")
    return 1 if any(each.unwanted for each in findings) else 0


def _start_s(name: str, image: Image, env: Mapping[str, str]) -> float:
    port = _free_port()
    with running(image, {**_env(name, {}), **env}, port=port) as seconds:
        return seconds


def _env(name: str, ports: Mapping[str, int]) -> dict[str, str]:
    return {"AUTH": "off", "METRICS_PORT": "0"} | {
        "extract-features": {"FEATURE_STORE_URL": "memory:"},
        "rank-items": {"MODEL_PATH": "/models"},
        "recommend": {
            f"{other.replace('-', '_').upper()}_URL": f"http://127.0.0.1:{ports.get(other, 9)}"
            for other in ("extract-features", "rank-items")
        },
    }[name]


def _model(state_dir: Path) -> Path:
    models = sorted((state_dir / "models").glob("*/manifest.json"))
    if not models:
        raise BuildError(f"{state_dir} holds no model; train one with ./run.sh train")
    return models[-1].parent


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _buildah(*words: str) -> str:
    return subprocess.run(["buildah", *words], check=True, capture_output=True, text=True).stdout.strip()  # noqa: S607


if __name__ == "__main__":
    sys.exit(main())
