"""Exposures through the whole local pipeline: answers, broker, log, report."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.demo import DemoState
from tests.programs import needs_redis
from tests.running import CLIENT
from tests.waiting import eventually
from tools.chaos import kills, shown
from tools.cli.verbs import main as run_verb
from tools.running import RunningPipeline

pytestmark = [pytest.mark.scenario, pytest.mark.may_block, pytest.mark.timeout(400)]


@pytest.fixture(scope="module", params=["sqlite", pytest.param("redis", marks=needs_redis)])
def pipeline(
    request: pytest.FixtureRequest, demo_state: DemoState, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RunningPipeline, str, Path]]:
    """Start the pipeline with exposures on, on each kind of store; return it, the kind and its state directory."""
    folder = tmp_path_factory.mktemp(f"exposures-{request.param}")
    demo_state.copy_to(folder)
    with kills.chaos_pipeline(folder, request.param, exposures=True) as running:
        yield running, request.param, folder


def report(running: RunningPipeline, folder: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    capsys.readouterr()
    assert run_verb(["experiments", "report", "--json", "--store", running.store_url, "--state-dir", str(folder)]) == 0
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)["figures"]
    return found


def test_an_answer_and_its_click_are_in_the_report(
    pipeline: tuple[RunningPipeline, str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """An answer reaches the log within seconds, and a click that names its exposure becomes its outcome."""
    running, _, folder = pipeline
    answer = CLIENT.post(f"http://127.0.0.1:{running.port}", json={"user_id": "user_7", "top_k": 3})
    item = answer.json()["recommendations"][1]["item_id"]
    eventually(lambda: [each["exposures"] for each in report(running, folder, capsys)] == [1])
    click = {"user_id": "user_7", "kind": "click", "item_id": item, "exposure_id": answer.headers["recsys-exposure"]}
    attributes = {"specversion": "1.0", "type": "dev.recsys.interaction.v1", "source": "/test", "id": "click"}
    headers = {"content-type": "application/json", **{f"ce-{name}": value for name, value in attributes.items()}}
    assert CLIENT.post(running.broker_url, content=json.dumps(click), headers=headers).status_code == 202
    eventually(lambda: report(running, folder, capsys)[0]["click_through"] == 1)


def test_kills_lose_no_pair_and_join_none_twice(pipeline: tuple[RunningPipeline, str, Path]) -> None:
    """
    Shuffled and repeated answers and interactions give the exact join although processes of every kind are killed.

    tools.chaos.shown runs this at full size.
    """
    running, store, _ = pipeline
    outcome = asyncio.run(shown.run(running, store=store, answers=1500, senders=16, seed=3))
    assert outcome.kills
    assert (outcome.waiting, outcome.dead_letters, outcome.wrong_answers) == (0, 0, 0)
    assert outcome.holds
