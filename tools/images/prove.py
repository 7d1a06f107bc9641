"""
`./run.sh prove-images`: build the images, check their content, and run them.

The command creates a base image with debootstrap, builds the images on it with buildah, and searches them for files
that must be absent. It runs each image with a read-only root and without root privileges, and sends a request through all
three functions, and the same request to the fused function. It prints a table. The exit status is 1 if a check fails. If
a required tool or root privileges are missing, the command prints the reason and exits with 0.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from localkn.processes import free_port
from offline.state import StateDirectory, StateError
from tools.images.builder import IMAGES, ROOT, Builder, BuildError
from tools.images.sandbox import Image, buildah, post, running, unpacked

FUNCTIONS = ("extract-features", "rank-items", "recommend")
FUSED = "fused"
TOOLS = ("buildah", "debootstrap", "unshare", "setpriv")
_BASE = "localhost/recsys-base:debootstrap"
_PREFIX = "localhost/recsys"

# Programs that would help an intruder.
SHELLS = {"sh", "bash", "dash", "ash", "zsh", "busybox"}
INSTALLERS = {"pip", "pip3", "apt", "apt-get", "dpkg", "ensurepip"}
COMPILERS = {"gcc", "cc", "g++", "clang", "ld", "as", "make", "cpp"}


@dataclass(frozen=True)
class ImageFinding:
    """Size, start times and unwanted content of an image."""

    name: str
    megabytes: float
    start_s: float
    uncompiled_start_s: float
    unwanted: Sequence[str]


def prove_images(*, base: str | None = None, suite: str, state_dir: Path) -> int:
    """Prove it; return the exit status."""
    if reason := missing():
        print(f"skipped: {reason}")
        return 0
    try:
        state = StateDirectory(state_dir)
        model = state.model_path(state.require_current())
        findings = prove(base or make_base(suite), model=model)
    except (BuildError, RuntimeError, StateError) as error:
        print(error, file=sys.stderr)
        return 1
    return report(findings)


def missing() -> str | None:
    """Return the reason why the checks cannot run on this machine; None if they can."""
    if absent := [tool for tool in TOOLS if not shutil.which(tool)]:
        return f"{', '.join(absent)} not installed (on Debian: apt-get install buildah debootstrap)"
    return None if os.geteuid() == 0 else "mounting and chroot require root; run the command as root"


def make_base(suite: str) -> str:
    """Build a minimal Debian image with Python and the packages for a virtual environment; return its name."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        wanted = "--include=python3,python3-venv,ca-certificates"
        done = subprocess.run(
            ["debootstrap", "--variant=minbase", wanted, suite, f"{folder}/root"],  # noqa: S607
            check=False,
            stdout=subprocess.DEVNULL,
        )
        if done.returncode:
            raise BuildError("debootstrap failed; the lines above give the reason")
        container = buildah("from", "scratch")
        buildah("add", "--quiet", container, f"{folder}/root", "/")
        buildah("commit", "--quiet", "--rm", container, _BASE)
    return _BASE


def prove(base: str, *, model: Path) -> list[ImageFinding]:
    """
    Build every function's image on *base*, check it, and run the pipeline from the images.

    Raises:
        BuildError: An image cannot be built.
        RuntimeError: A program does not start, or the pipeline's answer is wrong.
    """
    builder = Builder("buildah", ("--isolation", "chroot"))
    with ExitStack() as stack:
        images = {}
        for name in (*FUNCTIONS, FUSED):
            tag = f"{_PREFIX}/{name}:proof"
            builder.build(ROOT / IMAGES[name], context=ROOT, image=tag, arguments={"BASE": base})
            images[name] = stack.enter_context(unpacked(tag))
        for name in ("rank-items", FUSED):
            shutil.copytree(model, images[name].root / "models")
        findings = [examine(name, image) for name, image in images.items()]
        request = {"user_id": "user_42", "top_k": 3}
        with pipeline(images) as port:
            answer = post(port, request)
        if len(answer["recommendations"]) != 3 or answer.get("degraded"):
            raise RuntimeError(f"recommend gave a wrong answer: {answer}")
        port = free_port()
        with running(images[FUSED], _env(FUSED, {}), port=port):
            if (other := post(port, request)) != answer:
                raise RuntimeError(f"the fused function gave another answer: {other}, not {answer}")
        print(f"answer of the pipeline, non-root on read-only roots: {answer}")
    return findings


def examine(name: str, image: Image) -> ImageFinding:
    """Measure size and start times of one image, and list its unwanted content."""
    starts = [_start_s(name, image, {}) for _ in range(3)]
    # This folder has no bytecode, so Python compiles every module at the start.
    uncompiled_s = _start_s(name, image, {"PYTHONPYCACHEPREFIX": "/tmp/none"})  # noqa: S108
    return ImageFinding(name, image.size_bytes() / 1e6, statistics.median(starts), uncompiled_s, unwanted(image))


def unwanted(image: Image) -> list[str]:
    """Return the paths that must not be in the image, and the faults of its configuration."""
    found = [
        str(path.relative_to(image.root))
        for path in image.files()
        if path.name in SHELLS | INSTALLERS | COMPILERS and "site-packages" not in path.parts
    ]
    found += [str(path.relative_to(image.root)) for path in image.root.glob("**/pip/__init__.py")]
    if image.user.partition(":")[0] in {"", "0", "root"}:
        found.append("runs as root")
    if not image.labels.get("org.opencontainers.image.title"):
        found.append("has no OCI labels")
    return found


@contextmanager
def pipeline(images: Mapping[str, Image]) -> Iterator[int]:
    """Run the three functions, connected to each other; yield the port of recommend."""
    ports = {name: free_port() for name in FUNCTIONS}
    with ExitStack() as stack:
        for name in FUNCTIONS:
            stack.enter_context(running(images[name], _env(name, ports), port=ports[name]))
        yield ports["recommend"]


def report(findings: Sequence[ImageFinding]) -> int:
    """Print the findings as a table; return the exit status."""
    print(
        f"{'image':<18}{'MB':>6}{'ready after s':>15}{'without .pyc':>14}   no shell, pip, compiler; non-root; labelled"
    )
    for each in findings:
        result = "holds" if not each.unwanted else "FAILS: " + ", ".join(each.unwanted)
        print(f"{each.name:<18}{each.megabytes:>6.0f}{each.start_s:>15.2f}{each.uncompiled_start_s:>14.2f}   {result}")
    return 1 if any(each.unwanted for each in findings) else 0


def _start_s(name: str, image: Image, env: Mapping[str, str]) -> float:
    port = free_port()
    with running(image, {**_env(name, {}), **env}, port=port) as seconds:
        return seconds


def _env(name: str, ports: Mapping[str, int]) -> dict[str, str]:
    return {"AUTH": "off", "METRICS_PORT": "0"} | {
        "extract-features": {"FEATURE_STORE_URL": "memory:"},
        "rank-items": {"MODEL_PATH": "/models"},
        FUSED: {"FEATURE_STORE_URL": "memory:", "MODEL_PATH": "/models"},
        "recommend": {
            f"{other.replace('-', '_').upper()}_URL": f"http://127.0.0.1:{ports.get(other, 9)}"
            for other in ("extract-features", "rank-items")
        },
    }[name]
