"""The life of one instance, with real processes and without a platform."""

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from chassis.wire.transport import get
from kubeyaml.templates import Probe, Template
from localkn import probes
from localkn.errors import PlatformError
from localkn.instances import Instance, InstanceState, Launch
from localkn.processes import Processes, free_port
from tests.localkn.running import SAMPLE
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
async def processes() -> AsyncIterator[Processes]:
    """Yield a process group that ends with the test."""
    async with Processes() as started:
        yield started


class RecordedInstance:
    """An instance of the sample that records its states."""

    def __init__(
        self, directory: Path, processes: Processes, container: dict[str, Any], *, timeout_s: int = 1, **env: str
    ) -> None:
        body = {"spec": {"timeoutSeconds": timeout_s, "containers": [{"image": "x", **container}]}}
        self.states: list[InstanceState] = []
        self._changed = asyncio.Event()
        self.drained = asyncio.Event()
        self.instance = Instance("i", free_port(), Template.from_body(body), self._note, self._drain)
        given = {"PORT": str(self.instance.port), "LOCALKN_POD": "i", **env}
        (directory / "scratch").mkdir()
        launch = Launch([sys.executable, "app.py"], given, SAMPLE, directory / "log", directory / "scratch")
        self.life = asyncio.create_task(self.instance.run(lambda: launch, processes))

    def _note(self) -> None:
        self.states.append(self.instance.state)
        self._changed.set()

    async def _drain(self, _: Instance) -> None:
        await self.drained.wait()

    async def wait_for(self, state: InstanceState) -> None:
        async with asyncio.timeout(120):
            while state not in self.states:
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture
def start_instance(tmp_path: Path, processes: Processes) -> Callable[..., RecordedInstance]:
    """Return a function that starts an instance with given container fields and environment."""
    return partial(RecordedInstance, tmp_path, processes)


READY = {"readinessProbe": {"httpGet": {"path": "/readyz"}}}


async def test_an_instance_drains_before_sigterm(
    start_instance: Callable[..., RecordedInstance], tmp_path: Path
) -> None:
    """A stopped instance first drains its requests, then gets SIGTERM, and its scratch directory is deleted."""
    recorded = start_instance(READY, READY_AFTER_S="0.5")
    await recorded.wait_for(InstanceState.READY)
    answer = await get(httpx.URL(f"http://127.0.0.1:{recorded.instance.port}/"), timeout_s=60.0)
    status, body = answer.status, answer.body
    assert (status, json.loads(body)["pod"]) == (200, "i")
    recorded.instance.stop()
    await recorded.wait_for(InstanceState.DRAINING)
    assert recorded.instance.process is not None
    assert not recorded.instance.process.exited.done()
    recorded.drained.set()
    await recorded.wait_for(InstanceState.ENDED)
    assert recorded.states == [InstanceState.READY, InstanceState.DRAINING, InstanceState.ENDED]
    assert recorded.instance.exit_reason in {"exit code 0", "killed by SIGTERM"}
    assert not (tmp_path / "scratch").exists()


async def test_an_instance_that_ignores_sigterm_is_killed(start_instance: Callable[..., RecordedInstance]) -> None:
    """Draining and ending each take at most timeoutSeconds."""
    recorded = start_instance(READY, IGNORE_SIGTERM="1")
    await recorded.wait_for(InstanceState.READY)
    recorded.instance.stop()
    await recorded.wait_for(InstanceState.ENDED)
    assert recorded.instance.exit_reason == "killed by SIGKILL"


async def test_an_instance_that_ends_while_draining_is_not_waited_for(
    start_instance: Callable[..., RecordedInstance],
) -> None:
    """The platform does not wait for the drain of a dead instance, whose requests are lost."""
    recorded = start_instance(READY, timeout_s=600)
    await recorded.wait_for(InstanceState.READY)
    recorded.instance.stop()
    await recorded.wait_for(InstanceState.DRAINING)
    assert recorded.instance.process is not None
    recorded.instance.process.signal(signal.SIGKILL)
    async with asyncio.timeout(60):
        await recorded.life


async def test_a_crash_is_noticed_immediately(start_instance: Callable[..., RecordedInstance]) -> None:
    """The reason names the exit code."""
    recorded = start_instance({}, CRASH="7")
    await recorded.wait_for(InstanceState.ENDED)
    assert (recorded.instance.exit_reason, recorded.instance.ready_at) == ("exit code 7", None)


@pytest.mark.parametrize(
    ("probe", "reason"),
    [
        ({"startupProbe": {"httpGet": {"path": "/readyz"}, "periodSeconds": 1, "failureThreshold": 1}}, "startup probe failed"),
        ({"livenessProbe": {"httpGet": {"path": "/readyz"}, "periodSeconds": 1, "failureThreshold": 1, "initialDelaySeconds": 1}}, "liveness probe failed"),
    ],
)  # fmt: skip
async def test_failed_probes_kill_the_process(
    start_instance: Callable[..., RecordedInstance], probe: dict[str, Any], reason: str
) -> None:
    """A startup probe that runs out of attempts and a failed liveness probe both kill the process."""
    recorded = start_instance(probe, READY_AFTER_S="60")
    await recorded.wait_for(InstanceState.ENDED)
    assert recorded.instance.exit_reason == reason


async def test_readiness_can_be_lost_and_regained(start_instance: Callable[..., RecordedInstance]) -> None:
    """After the startup probe, readiness follows its probe in both directions."""
    startup = {"startupProbe": {"httpGet": {"path": "/readyz"}, "periodSeconds": 1}}
    recorded = start_instance(
        {**startup, "readinessProbe": {"httpGet": {"path": "/readyz"}, "periodSeconds": 1, "failureThreshold": 1}}
    )
    await recorded.wait_for(InstanceState.READY)
    assert recorded.instance.process is not None
    recorded.instance.process.signal(signal.SIGSTOP)
    await recorded.wait_for(InstanceState.UNREADY)
    recorded.states.clear()
    recorded.instance.process.signal(signal.SIGCONT)
    await recorded.wait_for(InstanceState.READY)


async def test_a_failed_start_has_a_reason(processes: Processes, tmp_path: Path) -> None:
    """The reason of an instance that cannot start is the missing command or the error of its preparation."""

    def refused() -> Launch:
        raise PlatformError("no room")

    async def nothing(_: Instance) -> None: ...

    missing = Launch(["/no/such/command"], {}, tmp_path, tmp_path / "log", tmp_path / "scratch")
    for launch, reason in ((lambda: missing, "No such file"), (refused, "no room")):
        instance = Instance(
            "i", 1, Template.from_body({"spec": {"containers": [{"image": "x"}]}}), lambda: None, nothing
        )
        await instance.run(launch, processes)
        assert instance.state is InstanceState.ENDED
        assert reason in str(instance.exit_reason)


async def test_processes_end_with_their_context(tmp_path: Path) -> None:
    """Processes that still run at the end of the block are killed together with their children."""
    log = tmp_path / "log"
    async with Processes() as processes:
        script = "sleep 100 & echo $!; exec sleep 100"
        process = processes.start(["/bin/sh", "-c", script], env={}, directory=tmp_path, log=log)
        await asyncio.to_thread(eventually, lambda: log.read_text().strip())
    assert await process.exited == -signal.SIGKILL
    await asyncio.to_thread(eventually, lambda: not psutil.pid_exists(int(log.read_text())))


@pytest.mark.parametrize(
    ("answer", "passes"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
        (b"HTTP/1.1 399 Odd\r\n\r\n", True),
        (b"HTTP/1.1 503 Not yet\r\n\r\n", False),
        (b"HTTP/1.1 101 X\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n", False),
        (b"SSH-2.0 hello\r\n", False),
        (b"", False),
    ],
)
async def test_a_probe_passes_only_on_success(answer: bytes, passes: bool) -> None:  # noqa: FBT001
    """Statuses 200 to 399 pass, anything that is not HTTP fails, and the probe sends its headers."""
    asked = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):  # a TCP probe sends nothing
            asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        spec = {"httpGet": {"port": "http1", "httpHeaders": [{"name": "X-Probe", "value": "1"}]}, "timeoutSeconds": 2}
        probe = Probe.from_spec(spec, container_port={"name": "http1", "containerPort": 8080})
        assert await probes.passes(probe, port) is passes
        assert await probes.passes(Probe.from_spec({"tcpSocket": {"port": port}}, container_port={}), 1)
    assert asked[0].startswith(b"GET / HTTP/1.1\r\n")
    assert b"X-Probe: 1" in asked[0]
    assert not await probes.passes(probe, port)
