"""A real redis-server on a free port of the loopback, for tests and benchmarks."""

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from redis import Redis
from redis.exceptions import AuthenticationError, RedisError

from tools.bench.processes import free_port

PROGRAM = shutil.which("redis-server")


@dataclass
class RedisServer:
    """A server that can be stopped and started again on its port, with its data."""

    folder: Path
    port: int
    options: Sequence[str] = ()
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """
        Start it, and wait until it answers.

        Raises:
            RuntimeError: it is not installed, or does not answer.
        """
        if PROGRAM is None:
            raise RuntimeError("redis-server is not installed")
        self.process = subprocess.Popen(
            [PROGRAM, "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder),
             "--save", "", "--appendonly", "yes", "--appendfsync", "no", *self.options],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                with Redis(port=self.port) as client:
                    client.ping()
            except AuthenticationError:
                return
            except RedisError:
                time.sleep(0.01)
            else:
                return
        raise RuntimeError("redis-server does not answer")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send *number* and wait for the end."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(timeout=10)

    def signal(self, number: signal.Signals) -> None:
        """Hold it with SIGSTOP, let it go on with SIGCONT."""
        if self.process is not None:
            self.process.send_signal(number)

    def flush(self) -> None:
        """Empty it."""
        with Redis(port=self.port) as client:
            client.flushall()


@contextmanager
def redis_running(folder: Path, *options: str) -> Iterator[RedisServer]:
    """Run one until the block ends, with *options* of its configuration."""
    server = RedisServer(folder, free_port(), options)
    server.start()
    try:
        yield server
    finally:
        server.stop(signal.SIGKILL)
