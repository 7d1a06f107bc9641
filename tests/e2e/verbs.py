"""The verbs of run.sh, and the processes they start."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from localkn.address import read_status
from localkn.processes import free_port
from tests.running import ROOT
from tests.waiting import eventually


def verb(*words: str, status: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
    ended = subprocess.run(
        ["./run.sh", *words],
        cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert ended.returncode == status, ended.stdout + ended.stderr
    return ended


@contextmanager
def started(state: Path, *words: str) -> Iterator[int]:
    """Start the pipeline of a state directory; yield its port, and stop the pipeline at the end."""
    port = free_port()
    try:
        told = verb("up", "--detach", "--port", str(port), "--state-dir", str(state), *words).stdout
        assert f"://127.0.0.1:{port}" in told
        yield port
    finally:
        verb("down", "--state-dir", str(state))
    assert_none_left(state)


def processes_of(state: Path) -> list[psutil.Process]:
    """Return every process that has this state directory in its arguments or environment."""
    found = []
    for process in psutil.process_iter():
        try:
            told = [*process.cmdline(), *process.environ().values()]
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        if process.pid != os.getpid() and any(str(state) in word for word in told):
            found.append(process)
    return found


def assert_none_left(state: Path) -> None:
    """Assert that every process of this state directory ends."""
    eventually(lambda: not processes_of(state))


def status_of(state: Path) -> dict[str, Any]:
    """Return the services that `status --json` prints, without starting a process."""
    services: dict[str, Any] = read_status(state / "platform")["services"]
    return services


def instances_of(state: Path, service: str) -> list[dict[str, Any]]:
    """Return the ready instances of the revisions with traffic."""
    revisions = status_of(state)[service]["revisions"]
    serving = [revision for revision in revisions if revision["traffic_percent"]]
    return [each for revision in serving for each in revision["instances"] if each["state"] == "ready"]


def await_instances(state: Path, service: str, count: int) -> list[dict[str, Any]]:
    """Wait until *service* has *count* ready instances, and return them."""
    found: list[dict[str, Any]] = []

    def enough() -> bool:
        found[:] = instances_of(state, service)
        return len(found) >= count

    eventually(enough)
    return found
