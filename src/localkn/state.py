"""The state directory: one running platform, its logs and its sockets."""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from localkn.errors import PlatformError

# sockaddr_un holds 108 bytes on Linux and 104 on macOS, including a final zero and the longest of our names.
_SOCKET_DIRECTORY_LIMIT = 85


class PlatformDirectory:
    """
    The directory of one platform; the next `up` clears everything in it except undelivered events and the history.

    `logs` holds a file for each instance, `supervisor_log` what a detached supervisor prints, `scratch` the volumes
    of instances, `envoy` the configuration of the ingress, `events` the queue of the broker, `history` the last day
    of figures that the dashboard shows.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.logs, self.scratch, self.envoy = root / "logs", root / "volumes", root / "envoy"
        self.events, self.history = root / "events", root / "history.ring"
        self.supervisor_log = root / "localkn.log"

    def socket(self, name: str) -> Path:
        """
        Return the path of a Unix socket.

        Raises:
            PlatformError: its directory belongs to another user.
        """
        place = self._socket_directory()
        if place.exists() and place.stat().st_uid != os.getuid():
            raise PlatformError(f"{place} belongs to another user; remove it")
        return place / f"{name}.sock"

    def _socket_directory(self) -> Path:
        """Return the state directory, or one in the temporary directory if the path is too long for a socket."""
        if len(os.fsencode(self.root)) <= _SOCKET_DIRECTORY_LIMIT:
            return self.root
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"localkn-{os.getuid()}-{digest}"

    @contextmanager
    def held(self) -> Iterator[None]:
        """
        Hold the directory, cleared of the files of an earlier platform; remove the sockets when the block ends.

        Raises:
            PlatformError: Another platform runs in it, or the directory of its sockets belongs to another user.
        """
        # Never closed: `wait_until_free` waits for the end of the process.
        self._lock()
        for directory in (self.logs, self.scratch, self.envoy):
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
        self.events.mkdir(exist_ok=True)
        sockets = self._socket_directory()
        sockets.mkdir(mode=0o700, exist_ok=True)
        places = [self.socket(name) for name in ("control", "stats", "admin", "broker")]
        try:
            yield
        finally:
            for place in places:
                place.unlink(missing_ok=True)
            if sockets != self.root:
                with suppress(OSError):
                    sockets.rmdir()

    def check(self) -> None:
        """
        Check that the directory could be held now.

        Raises:
            PlatformError: Another platform runs in the directory, or it cannot be written.
        """
        os.close(self._lock())

    def _lock(self) -> int:
        """Return the descriptor that holds the directory while it is open."""
        try:
            # The directories above may be new too, and hold data of users: `.recsys` for example.
            for directory in reversed((self.root, *self.root.parents)):
                directory.mkdir(mode=0o700, exist_ok=True)
            # Access to the control socket is control of the platform, and volumes hold Secrets.
            self.root.chmod(0o700)
            lock = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise PlatformError(f"{self.root}: cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise PlatformError(f"already running in {self.root}; `down` stops it") from error
        return lock

    def wait_until_free(self) -> None:
        """Return once the process that holds the directory has ended."""
        with (self.root / "lock").open("a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
