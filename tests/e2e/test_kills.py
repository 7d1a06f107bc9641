"""Instances killed under load on the local platform, with two instances of each hop."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.demo import DemoState
from tests.e2e.verbs import await_instances, instances_of, started, verb
from tests.running import ROOT
from tests.waiting import eventually

pytestmark = [pytest.mark.scenario, pytest.mark.alone, pytest.mark.may_block, pytest.mark.timeout(300)]

CALLERS, RATE = 20, 200


@pytest.fixture(scope="module")
def up(demo_state: DemoState, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    state = tmp_path_factory.mktemp("state")
    demo_state.copy_to(state)
    with started(state) as port:
        for service in ("extract-features", "rank-items"):
            verb("kn", "service", "update", service, "--scale-min", "2", "--state-dir", str(state))
            await_instances(state, service, 2)
        yield state, port


def drive(port: int, seconds: float) -> "subprocess.Popen[str]":
    """Start callers that send about 200 requests per second and count every degraded answer as an error."""
    pause_ms = CALLERS / RATE * 1000
    options = ["--port", port, "--callers", CALLERS, "--pause-ms", pause_ms, "--seconds", seconds]
    command = [sys.executable, "-m", "tools.bench.closed_loop", *map(str, options)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def await_replacement(state: Path, service: str, pid: int) -> None:
    """Wait until *pid* has ended and the service has two instances again."""

    def replaced() -> bool:
        pids = {each["pid"] for each in instances_of(state, service)}
        return pid not in pids and len(pids) == 2

    eventually(replaced)


@pytest.mark.parametrize("service", ["rank-items", "extract-features"])
def test_killing_one_of_two_instances_loses_no_request(up, service):
    """After each of two kills every caller gets a complete answer, and the platform replaces the instance."""
    state, port = up
    load = drive(port, 10)
    for _ in range(2):
        time.sleep(2.5)
        victim = await_instances(state, service, 2)[0]
        os.kill(victim["pid"], signal.SIGKILL)
        await_replacement(state, service, victim["pid"])
    outcome = json.loads(load.communicate(timeout=60)[0])
    assert outcome["requests"] > 300
    assert outcome["errors"] == 0, outcome
