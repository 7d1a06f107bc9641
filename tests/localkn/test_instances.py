"""The life of one instance, with real processes and no platform."""

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
from localkn.instances import Instance, Launch, State
from localkn.processes import Processes, free_port
from tests.localkn.running import SAMPLE, eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
async def processes() -> AsyncIterator[Processes]:
    """Processes that all end with the test."""
    async with Processes() as started:
        yield started


class Lived:
    """An instance of the sample that tells of its states."""

    def __init__(self, directory: Path, processes: Processes, container: dict[str, Any], **env: str) -> None:
        body = {"spec": {"timeoutSeconds": 1, "containers": [{"image": "x", **container}]}}
        self.states: list[State] = []
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

    async def reaches(self, state: State) -> None:
        async with asyncio.timeout(15):
            while state not in self.states:
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture
def live(tmp_path: Path, processes: Processes) -> Callable[..., Lived]:
    """Start an instance with a container's fields and a process environment."""
    return partial(Lived, tmp_path, processes)


READY = {"readinessProbe": {"httpGet": {"path": "/readyz"}}}


async def test_an_instance_drains_before_it_is_told_to_end(live: Callable[..., Lived], tmp_path: Path) -> None:
    """Ready by its probe; when told to go it first loses its requests, then gets SIGTERM; its scratch space goes."""
    lived = live(READY, READY_AFTER_S="0.5")
    await lived.reaches(State.READY)
    answer = await get(httpx.URL(f"http://127.0.0.1:{lived.instance.port}/"), timeout_s=5.0)
    status, body = answer.status, answer.body
    assert (status, json.loads(body)["pod"]) == (200, "i")
    lived.instance.stop()
    await lived.reaches(State.DRAINING)
    assert lived.instance.process is not None
    assert not lived.instance.process.exited.done()
    lived.drained.set()
    await lived.reaches(State.ENDED)
    assert lived.states == [State.READY, State.DRAINING, State.ENDED]
    assert lived.instance.exit_reason in {"exit code 0", "killed by SIGTERM"}
    assert not (tmp_path / "scratch").exists()


async def test_one_that_does_not_go_is_killed(live: Callable[..., Lived]) -> None:
    """Draining and ending are bounded by timeoutSeconds each."""
    lived = live(READY, IGNORE_SIGTERM="1")
    await lived.reaches(State.READY)
    started = asyncio.get_running_loop().time()
    lived.instance.stop()
    await lived.reaches(State.ENDED)
    assert 1.9 < asyncio.get_running_loop().time() - started < 4
    assert lived.instance.exit_reason == "killed by SIGKILL"


async def test_one_that_ends_while_it_drains_is_not_waited_for(live: Callable[..., Lived]) -> None:
    """Its requests are lost anyway."""
    lived = live(READY)
    await lived.reaches(State.READY)
    lived.instance.stop()
    await lived.reaches(State.DRAINING)
    assert lived.instance.process is not None
    lived.instance.process.signal(signal.SIGKILL)
    async with asyncio.timeout(0.9):
        await lived.life


async def test_a_crash_is_heard_of_at_once(live: Callable[..., Lived]) -> None:
    """With the code it ended with."""
    lived = live({}, CRASH="7")
    await lived.reaches(State.ENDED)
    assert (lived.instance.exit_reason, lived.instance.ready_at) == ("exit code 7", None)


@pytest.mark.parametrize(
    ("probe", "reason"),
    [
        ({"startupProbe": {"httpGet": {"path": "/readyz"}, "periodSeconds": 1, "failureThreshold": 1}}, "startup probe failed"),
        ({"livenessProbe": {"httpGet": {"path": "/readyz"}, "periodSeconds": 1, "failureThreshold": 1, "initialDelaySeconds": 1}}, "liveness probe failed"),
    ],
)  # fmt: skip
async def test_failed_probes_end_it(live: Callable[..., Lived], probe: dict[str, Any], reason: str) -> None:
    """A startup probe out of time, or a liveness probe, kills the process."""
    lived = live(probe, READY_AFTER_S="60")
    await lived.reaches(State.ENDED)
    assert lived.instance.exit_reason == reason


async def test_readiness_can_be_lost_and_found(live: Callable[..., Lived]) -> None:
    """A startup probe comes first; then readiness follows its probe both ways."""
    startup = {"startupProbe": {"httpGet": {"path": "/readyz"}, "periodSeconds": 1}}
    lived = live(
        {**startup, "readinessProbe": {"httpGet": {"path": "/readyz"}, "periodSeconds": 1, "failureThreshold": 1}}
    )
    await lived.reaches(State.READY)
    assert lived.instance.process is not None
    lived.instance.process.signal(signal.SIGSTOP)
    await lived.reaches(State.UNREADY)
    lived.states.clear()
    lived.instance.process.signal(signal.SIGCONT)
    await lived.reaches(State.READY)


async def test_what_cannot_be_started_says_so(processes: Processes, tmp_path: Path) -> None:
    """No such command, or files that cannot be made."""

    def refused() -> Launch:
        raise PlatformError("no room")

    async def nothing(_: Instance) -> None: ...

    missing = Launch(["/no/such/command"], {}, tmp_path, tmp_path / "log", tmp_path / "scratch")
    for launch, reason in ((lambda: missing, "No such file"), (refused, "no room")):
        instance = Instance(
            "i", 1, Template.from_body({"spec": {"containers": [{"image": "x"}]}}), lambda: None, nothing
        )
        await instance.run(launch, processes)
        assert instance.state is State.ENDED
        assert reason in str(instance.exit_reason)


async def test_processes_end_with_their_context(tmp_path: Path) -> None:
    """Whatever still runs is killed, its children too."""
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
async def test_a_probe_passes_on_success_alone(answer: bytes, passes: bool) -> None:  # noqa: FBT001
    """200 to 399; anything that is not HTTP fails, headers are sent."""
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
