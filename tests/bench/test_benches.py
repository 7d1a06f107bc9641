import json
from typing import get_args

import pytest

from tests.demo import DemoState
from tools.cli.measurements import Bench
from tools.cli.verbs import main


@pytest.mark.scenario
@pytest.mark.parametrize("name", get_args(Bench))
def test_every_benchmark_runs_at_a_small_size(name, demo_state: DemoState, monkeypatch, capsys):
    """Every benchmark runs, and its JSON has rows, the environment, and targets with figures."""
    # A copy of the trained demo replaces a training of several seconds.
    monkeypatch.setattr("tools.bench.pipeline.run", lambda plan: demo_state.copy_to(plan.state_dir))
    assert main(["bench", name, "--quick", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["bench"] == name
    assert report["rows"]
    assert not any(row.get("errors") for row in report["rows"])
    assert {"python", "machine", "cpus", "numpy"} <= report["environment"].keys()
    assert all(
        isinstance(target["value"], int | float) and target["op"] in {"<=", ">="} for target in report["targets"]
    )
