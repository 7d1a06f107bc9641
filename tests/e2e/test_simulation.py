"""An experiment on the local pipeline: simulated people look and click while an instance of recommend is killed."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from loadtests.people import demo_people
from loadtests.simulation import Simulated, simulate
from localkn.address import broker_url
from offline.state import StateDirectory
from recstore.exposures.records import ExposureOutcome
from recstore.exposures.urls import open_exposures
from recsys.client import AsyncClient, Recommendations
from recsys.experiments.assignment import Assignment
from recsys.experiments.ledger import read_ledger
from tests.demo import DemoState
from tests.e2e.verbs import await_instances, instances_of, started, verb
from tests.waiting import eventually

pytestmark = [pytest.mark.scenario, pytest.mark.may_block, pytest.mark.timeout(300)]

USERS, LISTS, CALLERS, KILLED_AFTER = 600, 2, 6, 300


@pytest.fixture(scope="module")
def up(demo_state: DemoState, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """Start the pipeline with exposures, an experiment whose second arm shows mixed lists, and two of recommend."""
    state = tmp_path_factory.mktemp("state")
    demo_state.copy_to(state)
    with started(state, "--exposures") as port:
        arms = ["--arm", "control=50%", "--arm", "mixed=50%,diversity=1"]
        verb("experiments", "start", "mixing", *arms, "--users", str(USERS), "--state-dir", str(state))
        verb("kn", "service", "update", "recommend", "--scale-min", "2", "--state-dir", str(state))
        await_instances(state, "recommend", 2)
        yield state, port


class KillingClient(AsyncClient):
    """
    Kills an instance of recommend after KILLED_AFTER lists.

    Attributes:
        killed: The process id of the killed instance.
        later: The exposure ids of the requests that this client sent after the kill.
    """

    def __init__(self, state: Path, url: str) -> None:
        super().__init__(url, events_url=broker_url(state / "platform", "default"), timeout_s=20)
        self._state = state
        self.killed: int | None = None
        self.later: set[str] = set()

    async def recommend(self, *args: Any, **kwargs: Any) -> Recommendations:
        after_kill = self.killed is not None
        answer = await super().recommend(*args, **kwargs)
        if after_kill:
            self.later.add(answer.exposure_id)
        return answer

    def watch(self, found: Simulated) -> None:
        if self.killed is None and len(found.looks) >= KILLED_AFTER:
            self.killed = instances_of(self._state, "recommend")[0]["pid"]
            os.kill(self.killed, signal.SIGKILL)


async def logged(state: Path) -> dict[str, ExposureOutcome]:
    current = StateDirectory(state)
    async with aclosing(open_exposures(current.store_url(current.require_current()))) as log:
        return {each.exposure_id: each async for each in log.scan()}


def report(state: Path) -> dict[str, Any]:
    told = verb("experiments", "report", "--json", "--follow", "1s", "--state-dir", str(state)).stdout
    found: dict[str, Any] = json.loads(told)
    return found


def test_a_planted_difference_is_found_while_an_instance_is_killed(up: tuple[Path, int]) -> None:
    """
    The report has both arms, every click at its list, no user in two arms, and the difference that the tastes make.

    People like one category best, so mixed lists get fewer clicks. The killed instance loses the answers that it had not
    reported. The log has the answer to each request that was sent after the kill.
    """
    state, port = up
    people, killing = demo_people(bias=0.7, seed=3), KillingClient(state, f"http://127.0.0.1:{port}")

    async def run() -> Simulated:
        async with killing as client:
            return await simulate(
                people, client, users=USERS, lists=LISTS, top_k=5, callers=CALLERS, watch=killing.watch
            )

    found = asyncio.run(run())
    assert (found.failed, found.unsent, found.unnamed) == (0, 0, 0)
    assert len(found.looks) == USERS * LISTS
    later = killing.later
    assert len(later) >= USERS * LISTS - KILLED_AFTER - CALLERS
    eventually(lambda: later <= asyncio.run(logged(state)).keys())
    clicks = {exposure_id: look.clicks for exposure_id, look in found.looks.items()}

    def joined() -> bool:
        log = asyncio.run(logged(state))
        return all(
            clicks[each.exposure_id] == sum(len(item.outcomes) for item in each.items)
            for each in log.values()
            if each.exposure_id in clicks
        )

    eventually(joined)

    told = report(state)
    figures = {each["arm"]: each for each in told["figures"] if each["experiment"] == "mixing"}
    assert figures.keys() == {"control", "mixed"}
    assert sum(each["exposures"] for each in figures.values()) >= len(later)
    (analysis,) = told["analyses"]
    assert analysis["switched"] == 0
    assert analysis["mismatch"] >= 0.001

    (experiment,) = read_ledger(state)
    expected: dict[str, list[float]] = {"control": [], "mixed": []}
    for look in found.looks.values():
        treatment = Assignment([experiment]).treat(look.user_id)
        assert treatment is not None
        expected[treatment.arm].append(look.expected_clicks)
    planted = mean(expected["mixed"]) - mean(expected["control"])
    lift = analysis["arms"][1]["lift"]
    assert lift["low"] <= planted <= lift["high"] < 0
