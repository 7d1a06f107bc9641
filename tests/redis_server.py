"""A real redis-server on a free port, for the tests that want one."""

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

from tests.running import take_port

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
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        assert PROGRAM is not None
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
        raise AssertionError("redis-server does not answer")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(timeout=10)

    def signal(self, number: signal.Signals) -> None:
        """Hold it with SIGSTOP, let it go on with SIGCONT."""
        assert self.process is not None
        self.process.send_signal(number)

    def flush(self) -> None:
        with Redis(port=self.port) as client:
            client.flushall()


@contextmanager
def redis_running(folder: Path, *options: str) -> Iterator[RedisServer]:
    server = RedisServer(folder, take_port(), options)
    server.start()
    try:
        yield server
    finally:
        assert server.process is not None
        server.process.kill()
        server.process.wait()
