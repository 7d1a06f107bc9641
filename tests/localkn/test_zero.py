"""Scale to zero behind Envoy: requests wait in the activator for an instance, and none fails."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.localkn.load import Caller
from tests.localkn.running import Running, needs_envoy
from tests.waiting import eventually

pytestmark = [needs_envoy, pytest.mark.anyio]

MIN_SCALE = 'autoscaling.knative.dev/min-scale: "1"\n'


async def wait_until(condition: Callable[[], Any]) -> None:
    """Poll a running platform in a thread until *condition* holds."""
    await asyncio.to_thread(eventually, condition)


def start(platform: Running, *arguments: str) -> Running:
    """Start the sample with a `front` that scales to zero."""
    platform.edit(MIN_SCALE, MIN_SCALE.replace("1", "0"))
    assert platform.up(*arguments).returncode == 0
    return platform


def at_zero(platform: Running) -> bool:
    revision = platform.revision("front-00001")
    return not revision["instances"]


async def test_requests_wait_for_an_instance_and_all_are_answered(platform: Running) -> None:
    """From one instance to zero and back, twice, every request is answered, and the cold start is measured."""
    start(platform, "--env-override", "front:READY_AFTER_S=0.5")
    results = []
    for _ in range(2):
        await wait_until(lambda: at_zero(platform))
        assert (platform.revision("front-00001")["desired"], platform.revision("front-00001")["waiting"]) == (0, 0)
        callers = [Caller(platform.port) for _ in range(20)]
        answers = await asyncio.gather(*(caller.get() for caller in callers))
        results += [answer["env"]["K_REVISION"] for answer in answers]
        for caller in callers:
            caller.close()
    assert results == ["front-00001"] * 40
    assert platform.revision("front-00001")["cold_start_s"] >= 0.5
