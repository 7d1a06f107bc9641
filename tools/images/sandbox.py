"""
Runs an image's program as a cluster does, without a container engine.

The program has a read-only root, an empty /dev/shm and an unprivileged user, and cannot gain privileges. The caller must be
root, to create mounts; the mounts end with the process.
"""

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_START_S = 60.0
_SCRIPT = """
set -eu
mount --make-rprivate /
mkdir -p "$1/dev/shm"
mount --bind "$1" "$1"
mount -o remount,ro,bind "$1"
mount -t tmpfs -o mode=1777,size=16m tmpfs "$1/dev/shm"
mount -t proc proc "$1/proc"
root=$1 user=$2; shift 2
exec setpriv --no-new-privs "$CHROOT" --userspec="$user" "$root" "$@"
"""


@dataclass(frozen=True)
class Image:
    """
    An unpacked image.

    Attributes:
        root: Folder with the image's files.
        command: Command that a container runs.
        env: Environment variables.
        user: User and group, as `UID:GID`.
        folder: Working directory.
        labels: OCI labels.
    """

    root: Path
    command: Sequence[str]
    env: Mapping[str, str]
    user: str
    folder: str
    labels: Mapping[str, str]

    def files(self) -> Iterator[Path]:
        """Yield every file and symbolic link."""
        for folder, _, names in os.walk(self.root):
            yield from (Path(folder) / name for name in names)

    def size_bytes(self) -> int:
        """Return the total size of the files."""
        return sum(path.lstat().st_size for path in self.files())


@contextmanager
def unpacked(image: str) -> Iterator[Image]:
    """Unpack *image* with buildah until the block ends."""
    container = buildah("from", image)
    try:
        config = json.loads(buildah("inspect", "--type", "image", image))["OCIv1"]["config"]
        yield Image(
            Path(buildah("mount", container)),
            config["Cmd"],
            dict(entry.split("=", 1) for entry in config["Env"]),
            config["User"],
            config["WorkingDir"],
            config["Labels"],
        )
    finally:
        buildah("rm", container)


@contextmanager
def running(image: Image, env: Mapping[str, str], *, port: int) -> Iterator[float]:
    """
    Run *image*'s program until the block ends; yield the seconds until it was ready.

    Raises:
        RuntimeError: The program exited, or was not ready within a minute.
    """
    namespaces = ["unshare", "--mount", "--pid", "--fork", "sh", "-c", _SCRIPT, "run"]
    # chroot starts in /, a container in its working directory. So Python changes the directory and executes the program.
    program, *rest = image.command
    path = _find_program(image, program)
    start = f"import os, sys; os.chdir({image.folder!r}); os.execv({path!r}, sys.argv[1:])"
    command = [*namespaces, str(image.root), image.user, path, "-S", "-c", start, program, *rest]
    variables = {**image.env, **env, "PORT": str(port), "CHROOT": shutil.which("chroot") or "chroot"}
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, env=variables, stdout=log, stderr=log, start_new_session=True)
        try:
            while not _is_ready(port):
                if process.poll() is not None or time.monotonic() > began + _START_S:
                    log.seek(0)
                    raise RuntimeError(f"{' '.join(image.command)} did not become ready: {log.read()[-2000:]}")
                time.sleep(0.005)
            yield time.monotonic() - began
        finally:
            # Kill the whole group: after the change of user, the program would survive the death of its parent.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def post(port: int, body: object) -> Any:
    """Send *body* as JSON to the function on *port*; return the decoded answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request("POST", "/", json.dumps(body))
        return json.load(connection.getresponse())


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    return False


def _find_program(image: Image, program: str) -> str:
    """Return the path of *program* on the image's PATH, because the shell outside would search its own PATH."""
    for folder in image.env["PATH"].split(":"):
        if os.path.lexists(image.root / folder.lstrip("/") / program):
            return f"{folder}/{program}"
    return program


def buildah(*words: str) -> str:
    """Run buildah; return its output."""
    return subprocess.run(["buildah", *words], check=True, capture_output=True, text=True).stdout.strip()  # noqa: S607
