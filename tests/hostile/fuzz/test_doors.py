"""
Mutations of valid requests at every door of the running pipeline.

`--fuzz-seconds` sets the duration of the folder's tests together. Mutations are drawn in rounds; each round has a
seed, which a failure names, and `--fuzz-seed` repeats the round.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.demo import DemoState
from tests.hostile.conftest import Figure
from tests.hostile.fuzz.doors import DOORS, Answer, Door, assert_fair, send
from tests.hostile.fuzz.mutations import Request, every_fragment, requests
from tests.hostile.fuzz.rounds import MUTATIONS, make_rounds
from tools.running import RunningPipeline, pipeline_running

pytestmark = [pytest.mark.scenario, pytest.mark.may_block, pytest.mark.timeout(600)]

MOST_GROWTH = 1.10


@dataclass
class Caller:
    """
    Sends mutations to a door, and the canary after each round of them.

    Attributes:
        door: The door.
        port: Its port.
        statuses: Number of answers by status; 0 stands for damaged bytes without an answer.
    """

    door: Door
    port: int
    statuses: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._right = self._ask_canary()
        assert self._right is not None
        assert self._right.status < 300, self._right

    def attempt(self, request: Request) -> None:
        """Send *request*, and check that its answer is fair and that the canary's answer is still right."""
        answer = send(self.port, request)
        self.statuses[answer.status if answer else 0] += 1
        assert_fair(self.door, request, answer)
        if self.statuses.total() % MUTATIONS == 0:
            assert self._ask_canary() == self._right

    def _ask_canary(self) -> Answer | None:
        return send(self.port, self.door.canary)


@pytest.fixture(scope="module")
def platform(demo_state: DemoState, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPipeline]:
    """The whole pipeline, as `./run.sh up` runs it."""
    folder = tmp_path_factory.mktemp("fuzz")
    demo_state.copy_to(folder)
    with pipeline_running(folder) as running:
        yield running


def port_of(platform: RunningPipeline, door: Door) -> int:
    if door.name == "public port":
        return platform.port
    if door.name == "dashboard":
        return int(platform.status()["dashboard"].rpartition(":")[2])
    return platform.port_of(door.name)


def memory_mb(platform: RunningPipeline) -> dict[str, float]:
    return {name: process.memory_info().rss / 1e6 for name, process in platform.processes().items()}


@pytest.mark.parametrize("door", DOORS, ids=[door.name for door in DOORS])
def test_mutations_are_answered_and_leave_nothing_behind(
    platform: RunningPipeline, door: Door, request: pytest.FixtureRequest, figure: Figure
) -> None:
    """
    Each mutation gets a success, a short refusal, or 503 or 504 with a reason; a valid request gets its right answer.

    After a warm-up, no process grows by more than a tenth in both halves of the mutations. An allocator may keep the
    memory of a long body, so one half may show a step.
    """
    rounds = make_rounds(request, door.name, tests=len(DOORS) + 1)
    caller = Caller(door, port_of(platform, door))
    for mutation in every_fragment(door.valid):
        caller.attempt(mutation)
    rounds.run(caller.attempt, requests(door.valid), share=0.3)
    before = memory_mb(platform)
    rounds.run(caller.attempt, requests(door.valid), share=0.35)
    between = memory_mb(platform)
    rounds.run(caller.attempt, requests(door.valid), share=0.35)
    after = memory_mb(platform)
    print(f"{door.name}: {dict(sorted(caller.statuses.items()))}")
    for name, mb in before.items():
        print(f"  {name}: {mb:.1f} MB before, {between.get(name, 0):.1f} between, {after.get(name, 0):.1f} after")
    assert after.keys() == between.keys() == before.keys(), "a process ended"
    growth = max(min(between[name] / before[name], after[name] / between[name]) for name in before)
    refused = sum(number for status, number in caller.statuses.items() if status >= 500)
    figure(f"fuzz: mutations sent to {door.name}", caller.statuses.total(), "requests")
    figure(f"fuzz: 503 and 504 with a reason from {door.name}", refused, "answers")
    figure(f"fuzz: largest growth of a process under mutations at {door.name}", (growth - 1) * 100, "%")
    assert growth <= MOST_GROWTH
