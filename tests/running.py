"""Run functions as real processes on real ports."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx

from localkn.processes import free_port
from tests.waiting import eventually

ROOT = Path(__file__).parent.parent
# Each new client of httpx loads the certificate authorities, which costs 60 ms of CPU. All tests share this client. It
# opens a connection for each request, so a server that restarts on the same port finds no connection of the earlier one.
CLIENT = httpx.Client(timeout=60, limits=httpx.Limits(max_keepalive_connections=0))


# On a busy machine an instance may stall for longer than the default budget of 1 s. A test that lets a budget end sets one.
_TEST_ENVIRONMENT = {"AUTH": "off", "METRICS_PORT": "0", "REQUEST_TIMEOUT_S": "10"}


@dataclass(frozen=True)
class Running:
    """A process that serves at `url`."""

    url: str
    process: "subprocess.Popen[bytes]"
    errors: IO[str]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def log(self) -> str:
        self.errors.seek(0)
        return self.errors.read()

    def post(self, body: object, **headers: str) -> httpx.Response:
        return CLIENT.post(self.url, json=body, headers=headers)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=120)


def source(function: str) -> str:
    return "fused/main.py" if function == "fused" else f"functions/{function}/main.py"


def shell_command(function: str) -> list[str]:
    return [sys.executable, "-m", "chassis.server", "--source", source(function)]


def stock_command(function: str, port: int) -> list[str]:
    program = str(Path(sys.executable).with_name("functions-framework"))
    return [program, "--source", source(function), "--target", "handle", "--port", str(port),
            "--host", "127.0.0.1"]  # fmt: skip


@contextmanager
def killed_at_the_end(process: "subprocess.Popen[Any]") -> Iterator["subprocess.Popen[Any]"]:
    """Kill *process* however the block ends: `with Popen(...)` alone waits for a process that a failed test leaves."""
    with process:
        try:
            yield process
        finally:
            process.kill()


def read_until(output: IO[str] | None, text: str) -> None:
    """Read up to the line that contains *text*, and fail if the output ends before."""
    assert output is not None
    assert any(text in line for line in output), f"the output ended without {text!r}"


@contextmanager
def running(function: str, env: Mapping[str, str], *, port: int = 0, stock: bool = False) -> Iterator[Running]:
    """Start *function*, wait until it is ready, stop it at the end."""
    port = port or free_port()
    command = stock_command(function, port) if stock else shell_command(function)
    with tempfile.TemporaryFile("w+") as errors:
        # The framework's command forks, so it gets its own process group: `end` can then kill all of it.
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **_TEST_ENVIRONMENT, **env, "PORT": str(port)},
            stderr=errors,
            start_new_session=True,
        )
        started = Running(f"http://127.0.0.1:{port}", process, errors)
        try:
            wait_ready(started)
            yield started
        finally:
            end(process)


@dataclass(frozen=True)
class Pipeline:
    """Three function processes that call each other directly."""

    extract_features: Running
    rank_items: Running
    recommend: Running


@contextmanager
def running_pipeline(
    features: Mapping[str, str], ranking: Mapping[str, str], recommend: Mapping[str, str] | None = None
) -> Iterator[Pipeline]:
    """Start the three functions, each with its own variables."""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(running("extract_features", features))
        second = stack.enter_context(running("rank_items", ranking))
        urls = {"EXTRACT_FEATURES_URL": first.url, "RANK_ITEMS_URL": second.url}
        yield Pipeline(first, second, stack.enter_context(running("recommend", urls | dict(recommend or {}))))


def end(process: "subprocess.Popen[bytes]") -> None:
    """Terminate the process gracefully so that it can save its coverage data, then kill its process group."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=60)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_ready(started: Running) -> None:

    def ready() -> bool:
        if started.process.poll() is not None:
            raise AssertionError(f"the process exited with {started.process.returncode}: {started.log()}")
        with contextlib.suppress(httpx.TransportError):
            return CLIENT.get(f"{started.url}/readyz").status_code == 200
        return False

    eventually(ready)
