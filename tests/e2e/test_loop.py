"""The loop, unattended: bad artefacts are refused, a shift of tastes is served, and no request fails."""

import asyncio
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import count
from pathlib import Path
from threading import Event

import msgspec
import pytest

from loadtests.people import demo_people
from loadtests.shift import Shifted, go_round, learned_until_in, versions_in, watch_shift
from loadtests.simulation import Audience
from localkn.address import broker_url
from offline.deciding import Decision
from offline.demo import Demo
from offline.state import StateDirectory
from offline.training import ModelSettings
from recsys.client import AsyncClient
from recsys.ranking.artefact import read_artefact
from tests.demo import DemoState
from tests.e2e.verbs import verb
from tests.offline.bad_artefacts import BAD, Around
from tests.running import take_port
from tests.waiting import LIMIT_S
from tools import loop

pytestmark = [pytest.mark.scenario, pytest.mark.alone, pytest.mark.may_block, pytest.mark.timeout(400)]

USERS, CALLERS, ROUND_S, SERVED_WITHIN_S = 100, 4, 5.0, 200.0
# The loop reads the whole store in each round.
PAUSE_S = 2.0


@pytest.fixture(scope="module")
def up(demo_state: DemoState, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[StateDirectory, int]]:
    """Start the pipeline with exposures."""
    state, port = tmp_path_factory.mktemp("state"), take_port()
    demo_state.copy_to(state)
    verb("up", "--exposures", "--detach", "--port", str(port), "--state-dir", str(state))
    try:
        yield StateDirectory(state), port
    finally:
        verb("down", "--state-dir", str(state))


@pytest.fixture
def kept_settings(demo_state: DemoState, monkeypatch: pytest.MonkeyPatch) -> None:
    """Retrain with the settings of the demo's model, because a choice takes most of the time of a training."""
    training = read_artefact(demo_state.model_path).manifest.training
    settings = msgspec.convert({name: training[name] for name in ModelSettings.__dataclass_fields__}, ModelSettings)
    monkeypatch.setattr("offline.material.decide", lambda *_, **__: Decision(settings, []))


@pytest.fixture
def bad(demo_state: DemoState, demo: Demo, tmp_path: Path) -> dict[str, Path]:
    """Write all bad artefacts."""
    items = {item.item_id: item for item in demo.items}
    around = Around(demo_state.model_path, tmp_path / "good", demo.records, items)
    around.train(around.good, around.records)
    made = {name: tmp_path / str(number) for number, name in enumerate(BAD)}
    for name, (make, _) in BAD.items():
        make(around, made[name])
    return made


def go_round_the_loop(state: StateDirectory, *, offer: Path | None = None) -> int:
    return loop.run(every=600, once=True, fewest=250, margin=0.05, step_duration=1, state_dir=state.folder, offer=offer)


class People:
    """People who look and click in a thread; their tastes shift when the test says so."""

    def __init__(self, state: StateDirectory, port: int) -> None:
        self._state, self._port = state, port
        self.have_looked, self.may_shift, self.have_shifted = Event(), Event(), Event()

    def live(self) -> Shifted:
        return asyncio.run(self._live())

    async def _live(self) -> Shifted:
        broker = broker_url(self._state.folder / "platform", "default")
        versions = versions_in(self._state.store_url(self._state.require_current()))
        async with AsyncClient(f"http://127.0.0.1:{self._port}", events_url=broker, timeout_s=20) as client:
            audience = Audience(demo_people(bias=0.7, seed=5), client, top_k=5)
            for number in count(1):
                await go_round(audience, users=USERS, number=-number, callers=CALLERS, round_s=ROUND_S)
                self.have_looked.set()
                if self.may_shift.is_set():
                    break
            return await watch_shift(
                audience,
                versions,
                learned_until_in(self._state),
                users=USERS,
                callers=CALLERS,
                within_s=SERVED_WITHIN_S,
                say=self._note,
                round_s=ROUND_S,
            )

    def _note(self, line: str) -> None:
        print(line)
        if not line.startswith("0 s"):
            self.have_shifted.set()


def test_bad_artefacts_are_refused_and_a_shift_is_served(up, bad, kept_settings, capsys) -> None:
    """
    While people look and click, 20 of 20 bad artefacts are refused with the reason. Then all tastes change, and within
    the limit the loop serves a model whose lists follow. No request fails, and no event is refused.
    """
    state, port = up
    people = People(state, port)
    with ThreadPoolExecutor(1) as thread:
        living: Future[Shifted] = thread.submit(people.live)
        try:
            # The comparison needs users who acted after both models were trained.
            assert people.have_looked.wait(LIMIT_S)
            refused: list[str] = []
            for name, model in bad.items():
                before = state.require_current()
                assert go_round_the_loop(state, offer=model) == 1, name
                assert re.search(BAD[name][1], capsys.readouterr().err), name
                assert state.require_current() == before
                refused.append(name)
        finally:
            people.may_shift.set()
        # The first training shall know the new tastes, so that one training is enough.
        assert people.have_shifted.wait(LIMIT_S)
        while not wait([living], timeout=PAUSE_S).done:
            go_round_the_loop(state)
    found = living.result()
    assert len(refused) == 20
    assert found.fault == ""
