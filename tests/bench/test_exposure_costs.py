"""The measurement of what exposures cost."""

import json

import pytest

from tests.demo import DemoState
from tools.exposure_costs import main

pytestmark = [pytest.mark.scenario, pytest.mark.may_block, pytest.mark.timeout(300)]


def test_the_costs_are_measured_in_each_state(demo_state: DemoState, monkeypatch, capsys):
    """At a small size, each state answers without an error, with one caller and with many."""
    # A copy of the trained demo replaces a training of several seconds.
    monkeypatch.setattr("tools.bench.pipeline.run", lambda plan: demo_state.copy_to(plan.state_dir))
    assert main(["--quick", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [(row["callers"], row["state"]) for row in report["rows"]] == [
        (callers, state) for callers in (32, 1) for state in ("off", "exposures", "exposures and an experiment")
    ]
    assert not any(row["errors"] for row in report["rows"])
