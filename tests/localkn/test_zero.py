"""Scale to zero behind Envoy: requests wait in the activator for an instance, and none fails."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.localkn.load import Caller
from tests.localkn.running import SAMPLE, Running, needs_envoy
from tests.waiting import eventually

pytestmark = [needs_envoy, pytest.mark.anyio, pytest.mark.scenario]

MIN_SCALE = 'autoscaling.knative.dev/min-scale: "1"\n'


async def wait_until(condition: Callable[[], Any]) -> None:
    """Poll a running platform in a thread until *condition* holds."""
    await asyncio.to_thread(eventually, condition)


def start(platform: Running, *arguments: str) -> None:
    """Start the sample with a `front` that scales to zero."""
    platform.edit(MIN_SCALE, MIN_SCALE.replace("1", "0"))
    started = platform.up(*arguments)
    assert started.returncode == 0, started.stderr


def front(platform: Running) -> dict[str, Any]:
    return platform.revision("front-00001")


def is_at_zero(platform: Running) -> bool:
    return not front(platform)["instances"]


async def burst(platform: Running, callers: int) -> set[str]:
    """Send requests at the same time; return the names of the instances that answered, all with 200."""
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ask(platform)) for _ in range(callers)]
    return {each.result() for each in asked}


async def ask(platform: Running) -> str:
    with contextlib.closing(Caller(platform.port)) as caller:
        return str((await caller.get())["pod"])


async def test_requests_wait_for_an_instance_and_all_are_answered(platform: Running) -> None:
    """At zero a burst waits and is answered in full, several times; status shows the zero and the cold start."""
    start(platform, "--env-override", "front:READY_AFTER_S=0.5")
    answered = []
    for _ in range(2):
        await wait_until(lambda: is_at_zero(platform))
        shown = front(platform)
        assert (shown["ready"], shown["desired"], shown["waiting"]) == (0, 0, 0)
        answered.append(await burst(platform, 20))
    assert all(answered)
    assert answered[0].isdisjoint(answered[1])
    assert front(platform)["cold_start_s"] >= 0.5


async def test_no_request_fails_while_the_last_instance_leaves(platform: Running) -> None:
    """Requests around the moment of the scale to zero reach the last instance, or wait for the next one."""
    start(platform, "--env-override", "front:SLEEP_MS=300")
    for late_s in (0.0, 0.03, 0.1, 0.3):
        await wait_until(lambda: front(platform)["desired"] == 0)
        await asyncio.sleep(late_s)
        assert await burst(platform, 10)


async def test_requests_behind_a_hard_limit_start_several_instances(platform: Running) -> None:
    """Requests that wait in Envoy's queue for the activator count as load, and all are answered."""
    platform.edit("timeoutSeconds: 10\n", "timeoutSeconds: 60\n      containerConcurrency: 1\n")
    start(platform, "--env-override", "front:SLEEP_MS=200", "--env-override", "front:READY_AFTER_S=3")
    await wait_until(lambda: is_at_zero(platform))
    asking = asyncio.create_task(burst(platform, 20))
    await wait_until(lambda: front(platform)["desired"] == 5)
    assert await asking


async def test_a_caller_that_leaves_is_dropped(platform: Running) -> None:
    """A caller that disconnects no longer waits, and its instance still starts."""
    start(platform, "--env-override", "front:READY_AFTER_S=2")
    await wait_until(lambda: is_at_zero(platform))
    asking = asyncio.create_task(ask(platform))
    await wait_until(lambda: front(platform)["waiting"] == 1)
    asking.cancel()
    await wait_until(lambda: front(platform)["waiting"] == 0)
    await wait_until(lambda: front(platform)["ready"] == 1)


async def test_a_start_that_fails_answers_503_with_the_reason(platform: Running) -> None:
    """The callers get a problem document instead of a wait; a later request finds the repaired revision."""
    program, broken = platform.directory / "app.py", platform.directory / "broken"
    crash = 'if code := os.environ.get("CRASH")'
    source = (SAMPLE / "app.py").read_text()
    assert crash in source
    program.write_text(source.replace(crash, f'{crash} or (os.path.exists("{broken}") and "3")'))
    platform.commands = platform.directory / "commands.yaml"
    platform.commands.write_text((SAMPLE / "commands.yaml").read_text())
    start(platform)
    await wait_until(lambda: is_at_zero(platform))
    broken.touch()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{platform.port}", timeout=60) as client:
        answer = await client.get("/")
        problem = json.loads(answer.content)
        assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
        assert problem["detail"] == "revision front-00001 cannot start: exit code 3"
        broken.unlink()
        assert (await client.get("/")).status_code == 200
