"""
Running an image's program as a cluster would, without a container engine: its root read-only, its user not root, no
privileges to be had, an empty /tmp. Needs root, for the mounts; nothing of them outlives the process.
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

_SCRIPT = """
set -eu
mount --make-rprivate /
mount --bind "$1" "$1"
mount -o remount,ro,bind "$1"
mount -t tmpfs -o mode=1777,size=16m tmpfs "$1/tmp"
mount -t proc proc "$1/proc"
root=$1 user=$2; shift 2
exec setpriv --no-new-privs "$CHROOT" --userspec="$user" "$root" "$@"
"""


@dataclass(frozen=True)
class Image:
    """
    An image unpacked.

    Attributes:
        root: Its files.
        command: What it runs.
        env: What it sets.
        user: Who it runs as, `UID:GID`.
        folder: Where it runs.
        labels: What it says of itself.
    """

    root: Path
    command: Sequence[str]
    env: Mapping[str, str]
    user: str
    folder: str
    labels: Mapping[str, str]

    def files(self) -> Iterator[Path]:
        """Yield every file and link."""
        for folder, _, names in os.walk(self.root):
            yield from (Path(folder) / name for name in names)

    def size_bytes(self) -> int:
        """Return what its files take."""
        return sum(path.lstat().st_size for path in self.files())


@contextmanager
def unpacked(image: str) -> Iterator[Image]:
    """Unpack *image* with buildah until the block ends."""
    container = _buildah("from", image)
    try:
        config = json.loads(_buildah("inspect", "--type", "image", image))["OCIv1"]["config"]
        yield Image(
            Path(_buildah("mount", container)),
            config["Cmd"],
            dict(entry.split("=", 1) for entry in config["Env"]),
            config["User"],
            config["WorkingDir"],
            config["Labels"],
        )
    finally:
        _buildah("rm", container)


@contextmanager
def running(image: Image, env: Mapping[str, str], *, port: int, within_s: float = 60.0) -> Iterator[float]:
    """
    Run *image*'s program until the block ends; yield how many seconds it took to be ready.

    Raises:
        RuntimeError: it ended, or was not ready in time.
    """
    namespaces = ["unshare", "--mount", "--pid", "--fork", "sh", "-c", _SCRIPT, "run"]
    # chroot begins in /, where the container would begin in its folder: Python changes there itself.
    program, *rest = image.command
    start = f"import os, sys; os.chdir({image.folder!r}); os.execv({_found(image, program)!r}, sys.argv[1:])"
    words = [*namespaces, str(image.root), image.user, _found(image, program), "-S", "-c", start, program, *rest]
    told = {**image.env, **env, "PORT": str(port), "CHROOT": shutil.which("chroot") or "chroot"}
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(words, env=told, stdout=log, stderr=log, start_new_session=True)
        try:
            while not _is_ready(port):
                if process.poll() is not None or time.monotonic() > began + within_s:
                    log.seek(0)
                    raise RuntimeError(f"{' '.join(image.command)} did not become ready: {log.read()[-2000:]}")
                time.sleep(0.005)
            yield time.monotonic() - began
        finally:
            # The whole group: the program has another user than who started it, which makes Linux forget to kill it
            # with its parent.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def post(port: int, body: object) -> Any:
    """Send *body* to the function on *port*; return its answer."""
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


def _found(image: Image, program: str) -> str:
    """Return where *program* is on the image's PATH: our own shell would look on ours."""
    for folder in image.env["PATH"].split(":"):
        if os.path.lexists(image.root / folder.lstrip("/") / program):
            return f"{folder}/{program}"
    return program


def _buildah(*words: str) -> str:
    return subprocess.run(["buildah", *words], check=True, capture_output=True, text=True).stdout.strip()  # noqa: S607
