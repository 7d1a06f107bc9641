"""A platform behind Envoy: callers see no failure while instances scale, revisions change and processes die."""

import asyncio
import contextlib
import random
import shutil
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from urllib.request import urlopen

import psutil
import pytest

from localkn.envoy import EnvoyIngress
from localkn.ingress import Endpoint, IngressCluster, Picture, Route
from localkn.processes import Processes, free_port
from localkn.services import TrafficTarget
from localkn.state import PlatformDirectory
from tests.localkn.load import Caller, Load
from tests.localkn.running import Running, needs_envoy
from tests.waiting import eventually

pytestmark = [needs_envoy, pytest.mark.anyio]

KILLS = 4


async def wait_until(condition: Callable[[], Any]) -> None:
    """Poll a running platform in a thread until *condition* holds."""
    await asyncio.to_thread(eventually, condition)


def ready(platform: Running, name: str = "front-00001") -> int:
    return int(platform.revision(name)["ready"])


async def kn(platform: Running, *arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(platform.kn, "service", "update", "front", *arguments)


def shows_load(revision: dict[str, Any]) -> bool:
    """Tell whether the figures of *revision* show forty callers."""
    return bool(revision["desired"] == 5 and revision["concurrency"] > 20 and revision["rps"] > 50)


class FixedAnswer(asyncio.Protocol):
    """An instance without a process that gives every request the same answer after a short time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        answer = b'HTTP/1.1 200 OK\r\ncontent-length: 26\r\n\r\n{"env":{"K_REVISION":"a"}}'
        asyncio.get_running_loop().call_later(0.02, self._transport.write, answer * data.count(b"\r\n\r\n"))


@pytest.fixture(scope="module")
def idle(module_platform: Running) -> Running:
    """Start the sample behind Envoy without load; `back` does not report its concurrency."""
    assert module_platform.up("--env-override", "back:REPORT=0").returncode == 0
    return module_platform


@pytest.mark.scenario
@pytest.mark.alone
async def test_an_idle_platform_needs_little_cpu_and_memory(idle: Running) -> None:
    """Supervisor, guardian and Envoy use at most 150 MB and 3 % of a core, also with instances that do not report."""
    instances = {i["pid"] for service in ("front", "back") for i in idle.instances(service)}
    own = [p for p in idle.processes() if p.pid not in instances]
    # The start may still cost something in the first windows, and a busy machine makes the same work dearer.
    busy = [await share_of_a_core(own, seconds=4)]
    while min(busy) > 0.03 and len(busy) < 5:
        busy.append(await share_of_a_core(own, seconds=4))
    assert sum(p.memory_info().rss for p in own) <= 150e6
    assert min(busy) <= 0.03, (busy, [p.cmdline() for p in own])


async def share_of_a_core(processes: list[psutil.Process], *, seconds: int) -> float:
    """Return the share of a core that *processes* use during *seconds*."""
    before = sum(sum(p.cpu_times()[:2]) for p in processes)
    await asyncio.sleep(seconds)
    return (sum(sum(p.cpu_times()[:2]) for p in processes) - before) / seconds


async def test_hosts_are_routed_to_services(idle: Running) -> None:
    """Every Service answers under its names and on its own port, and loopback names lead to the public Service."""
    for host, service in [
        ("back.default", "back"),
        ("back.default.svc.cluster.local", "back"),
        ("front.default.localhost:8080", "front"),
        ("127.0.0.1", "front"),
        ("anything.localhost", "front"),
    ]:
        with contextlib.closing(Caller(idle.port, host)) as caller:
            answer = await caller.get()
        assert (answer["env"]["K_SERVICE"], answer["headers"]["host"]) == (service, host)
    inner = int(idle.status("back")["url"].rpartition(":")[2])
    with contextlib.closing(Caller(inner)) as caller:
        assert (await caller.get())["env"]["K_SERVICE"] == "back"


async def test_a_killed_envoy_restarts(idle: Running) -> None:
    """The ingress restarts with its earlier configuration."""
    (envoy,) = [p for p in idle.processes() if p.name() == "envoy"]
    envoy.kill()

    def answers() -> bool:
        with contextlib.suppress(OSError), urlopen(f"http://127.0.0.1:{idle.port}/", timeout=5) as answer:
            return bool(answer.status == 200)
        return False

    await wait_until(answers)


@pytest.mark.scenario
@pytest.mark.alone
async def test_instances_follow_the_load(platform: Running) -> None:
    """
    Forty callers scale a Service to five instances, silence scales it to one, and no request fails.

    One Service reports its concurrency, and the ingress samples that of the other.
    """
    done = platform.up("--env-override", "SLEEP_MS=50", "--env-override", "back:REPORT=0")
    assert done.returncode == 0, done.stderr
    inner = int(platform.status("back")["url"].rpartition(":")[2])
    names = ("front", "back")
    async with Load(platform.port, 40) as reported, Load(inner, 40) as sampled:
        await wait_until(lambda: all(len(platform.instances(name)) == 5 for name in names))
        for name in names:
            await wait_until(lambda: shows_load(platform.revision(f"{name}-00001", name)))  # noqa: B023
    await wait_until(lambda: all(len(platform.instances(name)) == 1 for name in names))
    assert reported.failures == sampled.failures == []
    assert platform.status()["ready"]


@pytest.mark.scenario
@pytest.mark.alone
async def test_a_new_revision_takes_over_under_load(platform: Running) -> None:
    """No request fails during updates, a broken update, a traffic split, a tag and a rollback under load."""
    assert platform.up().returncode == 0
    async with Load(platform.port, 10, rate=100) as results:
        done = await kn(platform, "--env", "GREETING=X")
        assert done.returncode == 0, done.stderr
        assert "front-00002" in done.stdout
        results.answers.clear()
        await wait_until(lambda: sum(results.answers.values()) >= 40)
        assert set(results.answers) == {"front-00002"}

        done = await kn(platform, "--env", "CRASH=9")
        assert done.returncode == 1
        assert "front-00003 failed" in done.stderr
        assert "about to exit with 9" in done.stderr
        broken = platform.revision("front-00003")
        assert (broken["ready"], broken["desired"], broken["traffic_percent"]) == (0, 0, 0)
        assert "exit code 9" in platform.status()["problem"]
        assert set(results.answers) == {"front-00002"}

        assert (await kn(platform, "--traffic", "front-00001=100")).returncode == 0
        results.answers.clear()
        await wait_until(lambda: sum(results.answers.values()) >= 30)
        assert set(results.answers) == {"front-00001"}

        tagged = ["--tag", "front-00002=next", "--traffic", "front-00001=90,next=10"]
        assert (await kn(platform, *tagged)).returncode == 0
    assert results.failures == []
    assert [platform.revision(f"front-0000{n}")["traffic_percent"] for n in (1, 2, 3)] == [90, 10, 0]

    async with Load(platform.port, 8) as split:
        await wait_until(lambda: sum(split.answers.values()) >= 5000)
    share = split.answers["front-00002"] / sum(split.answers.values())
    assert 0.08 < share < 0.12
    assert split.failures == []
    tagged_host = Caller(platform.port, "next-front.default.localhost:80")
    assert (await tagged_host.get())["env"]["K_REVISION"] == "front-00002"
    tagged_host.close()


@pytest.mark.scenario
@pytest.mark.alone
async def test_killed_instances_are_replaced(platform: Running) -> None:
    """Under load, capacity returns after each SIGKILL, and only requests in flight on the killed instance fail."""
    platform.edit('autoscaling.knative.dev/min-scale: "1"\n', 'autoscaling.knative.dev/min-scale: "3"\n')
    assert platform.up("--env-override", "SLEEP_MS=10").returncode == 0
    kills = 0
    async with Load(platform.port, 6) as results:
        while kills < KILLS:
            victim = random.choice(platform.instances())
            psutil.Process(victim["pid"]).kill()
            kills += 1
            await wait_until(lambda: victim["pid"] not in [i["pid"] for i in platform.instances()])  # noqa: B023
            await wait_until(lambda: ready(platform) >= 3)
            answered = sum(results.answers.values())
            await wait_until(lambda: sum(results.answers.values()) > answered + 200)  # noqa: B023
    # A kill may lose only the requests in flight on that instance: one per caller at most.
    assert len(results.failures) <= kills * 6, results.failures
    assert sum(results.answers.values()) > 100 * len(results.failures)


@pytest.mark.scenario
@pytest.mark.alone
async def test_a_request_refused_by_a_dead_instance_is_retried(tmp_path: Path) -> None:
    """One of two endpoints is closed and therefore the least loaded; the other one answers every request."""
    state, port, dead = PlatformDirectory(tmp_path), free_port(), free_port()
    server = await asyncio.get_running_loop().create_server(FixedAnswer, "127.0.0.1", 0)
    endpoints = [Endpoint(server.sockets[0].getsockname()[1]), Endpoint(dead)]
    route = Route("front", free_port(), [TrafficTarget("a", percent=100)], public=True)
    with state.held():
        async with Processes() as processes:
            envoy = EnvoyIngress(state, processes, port=port, certificate=None, changed=lambda: None)
            envoy.publish(Picture([IngressCluster("a", endpoints)], [route]))
            await envoy.start()
            async with Load(port, 20) as results:
                await wait_until(lambda: sum(results.answers.values()) > 1000)
            await envoy.stop()
    server.close()
    assert results.failures == []


async def test_a_hard_limit_queues_requests_at_the_ingress(platform: Running) -> None:
    """With containerConcurrency 2 an instance gets two requests at a time; the waiting ones count as load."""
    platform.edit("      timeoutSeconds: 10\n      containers:\n        - image: registry.example.com/acme/sample:v1",
                  "      containerConcurrency: 2\n      containers:\n        - image: registry.example.com/acme/sample:v1")  # fmt: skip
    platform.edit('autoscaling.knative.dev/max-scale: "5"\n', 'autoscaling.knative.dev/max-scale: "1"\n')
    assert platform.up("--env-override", "SLEEP_MS=100").returncode == 0
    async with Load(platform.port, 8) as results:
        await wait_until(lambda: 5 < platform.revision("front-00001")["panic"] <= 8.5)
        assert platform.revision("front-00001")["rps"] < 21
    assert results.failures == []
    slow = await kn(platform, "--env", "READY_AFTER_S=30", "--wait-timeout", "1")
    assert "timeout: service 'front' not ready after 1 seconds" in slow.stderr
    listed = await asyncio.to_thread(platform.kn, "revision", "list", "-s", "front")
    assert "Unknown   0 of 1 instances are ready" in listed.stdout


async def test_a_slow_request_times_out(platform: Running) -> None:
    """A request that exceeds timeoutSeconds gets 504."""
    platform.edit("timeoutSeconds: 10\n      containers:\n        - image: registry.example.com/acme/sample:v1",
                  "timeoutSeconds: 1\n      containers:\n        - image: registry.example.com/acme/sample:v1")  # fmt: skip
    assert platform.up("--env-override", "SLEEP_MS=60000").returncode == 0
    with pytest.raises(ConnectionError, match="504"), contextlib.closing(Caller(platform.port)) as caller:
        await caller.get()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
async def test_the_public_port_can_serve_tls(platform: Running) -> None:
    """With a certificate the public port terminates TLS; a certificate and key that do not match are refused."""
    certificate, key = platform.directory / "c.pem", platform.directory / "k.pem"
    subprocess.run(  # noqa: ASYNC221 - nothing else runs yet
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    refused = platform.up("--tls-cert", str(certificate), "--tls-key", str(certificate), detach=False)
    assert refused.returncode == 1
    assert "are not a certificate and its key" in refused.stderr
    assert "belong together" in platform.up("--tls-cert", str(certificate), detach=False).stderr
    done = platform.up("--tls-cert", str(certificate), "--tls-key", str(key))
    assert done.returncode == 0, done.stderr
    assert f"https://127.0.0.1:{platform.port}" in done.stdout
    context = ssl.create_default_context(cafile=certificate)
    reader, writer = await asyncio.open_connection("localhost", platform.port, ssl=context)
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()
