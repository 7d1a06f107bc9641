"""Instances of the entry point killed under load on the local platform, with two instances and with one."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from recsys.client import AsyncClient, CallError
from tests.demo import DemoState
from tests.e2e.verbs import await_instances, instances_of, started, verb

pytestmark = [pytest.mark.scenario, pytest.mark.alone, pytest.mark.may_block, pytest.mark.timeout(300)]

CALLERS, KILLS, PAUSE_S = 10, 3, 0.05


@pytest.fixture(scope="module")
def up(demo_state: DemoState, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    state = tmp_path_factory.mktemp("state")
    demo_state.copy_to(state)
    with started(state) as port:
        yield state, port


async def kill_under_load(state: Path, instances: int, call, outcomes: Counter[str]) -> None:
    """Repeat *call* by ten callers, and count its outcomes, until instances were killed and replaced three times."""
    ended = asyncio.Event()

    async def work() -> None:
        while not ended.is_set():
            outcomes[await call()] += 1
            await asyncio.sleep(PAUSE_S)

    async with asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(work())
        for _ in range(KILLS):
            seen = outcomes.total()
            while outcomes.total() < seen + 5 * CALLERS:
                await asyncio.sleep(PAUSE_S)
            (victim, *_) = await asyncio.to_thread(await_instances, state, "recommend", instances)
            os.kill(victim["pid"], signal.SIGKILL)
            while True:
                pids = {each["pid"] for each in await asyncio.to_thread(instances_of, state, "recommend")}
                if victim["pid"] not in pids and len(pids) == instances:
                    break
                await asyncio.sleep(PAUSE_S)
        ended.set()


def test_with_two_instances_a_client_does_not_notice(up):
    """After each of three kills every caller of `recsys.client` gets a complete answer."""
    state, port = up
    verb("kn", "service", "update", "recommend", "--scale-min", "2", "--state-dir", str(state))
    await_instances(state, "recommend", 2)
    outcomes = Counter[str]()

    async def run() -> None:
        async with AsyncClient(f"http://127.0.0.1:{port}", timeout_s=10) as client:

            async def call() -> str:
                try:
                    return "degraded" if (await client.recommend("user_42")).degraded else "ok"
                except CallError as error:
                    return str(error)

            await kill_under_load(state, 2, call, outcomes)

    asyncio.run(run())
    assert outcomes.keys() == {"ok"}, outcomes


def test_with_one_instance_callers_get_503_with_retry_after(up):
    """While the only instance restarts, a plain caller gets an answer or 503 with Retry-After, and nothing else."""
    state, port = up
    verb("kn", "service", "update", "recommend", "--scale", "1..1", "--state-dir", str(state))
    await_instances(state, "recommend", 1)
    outcomes = Counter[str]()

    async def run() -> None:
        async with httpx.AsyncClient(timeout=15) as client:

            async def call() -> str:
                budget = {"x-request-timeout-ms": "10000"}
                answer = await client.post(f"http://127.0.0.1:{port}", json={"user_id": "user_42"}, headers=budget)
                return f"{answer.status_code} {answer.headers.get('retry-after', '')}".strip()

            await kill_under_load(state, 1, call, outcomes)

    asyncio.run(run())
    assert outcomes.keys() <= {"200", "503 1"}, outcomes
    assert outcomes["200"]
