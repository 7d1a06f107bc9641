"""The search for leaks, at a small size; full size: tools.chaos.soak."""

import asyncio
from pathlib import Path

import pytest

from tests.demo import DemoState
from tests.hostile.conftest import Figure
from tools.chaos.soak import ProcessUsage, SoakFaults, SoakLoad, compare, run
from tools.running import pipeline_running

pytestmark = pytest.mark.may_block


@pytest.mark.scenario
@pytest.mark.alone
@pytest.mark.timeout(300)
def test_a_load_leaves_memory_and_descriptors_as_they_were(
    demo_state: DemoState, tmp_path: Path, figure: Figure
) -> None:
    """Every answer is right, every event is counted once, and no process grows by more than a tenth."""
    demo_state.copy_to(tmp_path)
    with pipeline_running(tmp_path, max_scale=1) as pipeline:
        report = asyncio.run(run(pipeline, SoakLoad(requests=3000, events=1000, connections=600)))
    assert {row["process"].rpartition("-0")[0] or row["process"] for row in report.rows} >= {
        *("localkn", "dashboard", "extract-features", "rank-items", "recommend", "broker-ingress")
    }
    growth = max(row["rss_growth_%"] for row in report.rows)
    figure("largest growth of a process under 3,000 requests, 1,000 events and 600 connections", growth, "%")
    assert report.holds, [target for target in report.targets if not target.holds]


BEFORE = {"a": ProcessUsage(1, 50.0, 20), "b": ProcessUsage(2, 50.0, 200)}


@pytest.mark.parametrize(
    ("after", "faults", "missed"),
    [
        ({"a": ProcessUsage(1, 54.9, 36), "b": ProcessUsage(2, 45.0, 220)}, SoakFaults(), set()),
        ({"a": ProcessUsage(1, 55.1, 20), "b": BEFORE["b"]}, SoakFaults(), {"a: memory, %"}),
        (
            {"a": ProcessUsage(1, 50.0, 37), "b": ProcessUsage(2, 50.0, 221)},
            SoakFaults(),
            {"a: descriptors", "b: descriptors"},
        ),
        ({"a": ProcessUsage(1, 50.0, 20, 112), "b": BEFORE["b"]}, SoakFaults(), set()),
        ({"a": ProcessUsage(1, 50.0, 20, 113), "b": BEFORE["b"]}, SoakFaults(), {"a: connections"}),
        ({"a": ProcessUsage(9, 50.0, 20), "b": BEFORE["b"]}, SoakFaults(), {"processes that ended"}),
        (BEFORE, SoakFaults(answers=1, dead_letters=1), {"wrong answers", "dead letters"}),
    ],
)
def test_growth_and_wrong_answers_are_reported(
    after: dict[str, ProcessUsage], faults: SoakFaults, missed: set[str]
) -> None:
    """The report fails if memory, descriptors or connections grew beyond their bounds, a process ended, or an answer was wrong."""
    report = compare(BEFORE, after, faults)
    assert {target.name for target in report.targets if not target.holds} == missed
    assert report.holds is (not missed)
