"""Builds images with docker, podman or buildah."""

import ast
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Each image and its Dockerfile. On a cluster, `offline` loads the demo data and trains; `redis` is its feature store.
IMAGES: Mapping[str, str] = {
    "extract-features": "functions/extract_features/Dockerfile",
    "rank-items": "functions/rank_items/Dockerfile",
    "recommend": "functions/recommend/Dockerfile",
    "fused": "fused/Dockerfile",
    "offline": "offline/Dockerfile",
    "redis": "knative/components/redis/Dockerfile",
}
# The command that brings an archive of an image into the nodes of a cluster. `registry` pushes without an archive.
DESTINATIONS: Mapping[str, Sequence[str]] = {
    "registry": (),
    "containerd": ("ctr", "--namespace", "k8s.io", "images", "import"),
    "k3d": ("k3d", "image", "import"),
    "kind": ("kind", "load", "image-archive"),
    "minikube": ("minikube", "image", "load"),
}
_BUILDERS: Mapping[str, Sequence[str]] = {
    "docker": ("docker", "build"),
    "podman": ("podman", "build"),
    "buildah": ("buildah", "build"),
}


class BuildError(Exception):
    """An image could not be built."""


@dataclass(frozen=True)
class Builder:
    """
    A program that builds images.

    Attributes:
        name: docker, podman or buildah.
        flags: Additional flags for every build.
    """

    name: str
    flags: Sequence[str] = ()

    def build(self, dockerfile: Path, *, context: Path, image: str, arguments: Mapping[str, str]) -> None:
        """
        Build *image*.

        Raises:
            BuildError: The build failed; the builder printed the reason.
        """
        given = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
        with self._pip_flags() as pip:
            command = [*_BUILDERS[self.name], "--file", str(dockerfile), "--tag", image, *given, *pip, *self.flags]
            _run([*command, str(context)], f"{self.name} cannot build {image}")

    def deliver(self, image: str, to: str) -> str:
        """
        Push *image* to the registry in its name, or load it into the nodes of a cluster.

        Args:
            image: Full name of an image that this builder has.
            to: A name in DESTINATIONS.

        Returns:
            The name of the image on the cluster. From a registry, it ends in a digest, because a tag may move.

        Raises:
            BuildError: A command failed; it printed the reason.
        """
        if not (load := DESTINATIONS[to]):
            return self._push(image)
        # /tmp may be too small for an image.
        with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
            archive = f"{folder}/image.tar"
            save = [self.name, "save", "--output", archive, image]
            if self.name == "buildah":
                save = ["buildah", "push", image, f"docker-archive:{archive}:{image}"]
            _run(save, f"{image} cannot be written to {folder}")
            _run([*load, archive], f"{to} cannot load {image}")
        return image

    def _push(self, image: str) -> str:
        """Push *image*, and return its name with the digest in place of the tag."""
        repository = image.rpartition(":")[0]
        if self.name == "docker":
            _run(["docker", "push", image], f"{image} cannot be pushed")
            inspect = ["docker", "image", "inspect", "--format", "{{json .RepoDigests}}", image]
            known = subprocess.run(inspect, capture_output=True, text=True, check=False).stdout
            for name in json.loads(known or "[]"):
                if name.startswith(f"{repository}@"):
                    return str(name)
            raise BuildError(f"{image} is pushed, but docker does not name its digest")
        with tempfile.TemporaryDirectory() as folder:
            digest = Path(folder, "digest")
            _run([self.name, "push", "--digestfile", str(digest), image], f"{image} cannot be pushed")
            return f"{repository}@{digest.read_text().strip()}"

    @contextmanager
    def _pip_flags(self) -> Iterator[list[str]]:
        """Yield flags that give pip in the build this machine's settings, as a secret, and its package folders."""
        settings = pip_settings()
        if not settings:
            yield []
            return
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
            file.write("[global]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items()))
            file.flush()
            # `docker build` cannot mount folders.
            folders = [] if self.name == "docker" else sorted(local_paths(settings))
            volumes = [word for path in folders for word in ("--volume", f"{path}:{path}:ro")]
            yield ["--secret", f"id=pip,src={file.name}", *volumes]


def _run(command: Sequence[str], fault: str) -> None:
    """Print *command* and run it; raise a BuildError with *fault* if it fails."""
    print("+", *command, file=sys.stderr, flush=True)
    try:
        failed = subprocess.run(command, check=False).returncode
    except FileNotFoundError:
        raise BuildError(f"{fault}: {command[0]} is not installed") from None
    if failed:
        raise BuildError(f"{fault}; the lines above give the reason")


def find_builder(wanted: str | None, flags: Sequence[str] = ()) -> Builder:
    """
    Return the builder *wanted*, or the first one that works.

    Raises:
        BuildError: No builder works.
    """
    for name in [wanted] if wanted else _BUILDERS:
        # The docker client can be installed without a running engine; `info` fails then.
        if shutil.which(name) and subprocess.run([name, "info"], capture_output=True, check=False).returncode == 0:
            return Builder(name, flags)
    raise BuildError(f"cannot build images: install and start {wanted or 'docker, podman or buildah'}")


def pip_settings() -> dict[str, str]:
    """Return pip's settings on this machine. The environment overrides configuration files, as in pip."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    settings: dict[str, str] = {}
    for line in sorted(listed.splitlines(), key=lambda line: line.startswith(":env:")):
        key, separator, value = line.partition("=")
        scope, _, name = key.rpartition(".")
        if separator and scope in {"global", "install", ":env:"}:
            settings[name] = str(ast.literal_eval(value)).replace("\n", " ")
    return settings


def local_paths(settings: Mapping[str, str]) -> Iterator[str]:
    """Yield the existing files and folders that *settings* refer to."""
    for word in " ".join(settings.values()).split():
        path = Path(word.removeprefix("file://"))
        # The pages of an index link to package files next to its folder.
        path = path.parent if path.name == "simple" else path
        if path.is_absolute() and path.exists():
            yield str(path)


def revision() -> str:
    """Return the current commit, marked as dirty if the tree has changes; `unknown` without git."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],  # noqa: S607 - the caller's git
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or "unknown"
