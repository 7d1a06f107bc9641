import json
from typing import get_args

import pytest

from tests.demo import DemoState
from tools.bench.zero import report
from tools.cli.measurements import Bench
from tools.cli.verbs import main

ALONE = [{"extract_features": 0.5, "rank_items": 1.0, "recommend": 0.75}] * 3


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


def test_targets_compare_together_with_the_slowest_alone():
    """The ratio is that of the 95th percentiles, and an answer without ranking is not full."""
    answers = [(1.2, {"recommendations": [1]})] * 19 + [(9.0, {"recommendations": [1], "degraded": ["ranking"]})]
    made = report(ALONE, answers)
    assert [(target.value, target.holds) for target in made.targets] == [(0.95, False), (1.2, True), (1.2, True)]
    assert made.rows[-1] == {"woken": "together", "trials": 20, "p50_s": 1.2, "p95_s": 1.2, "max_s": 9.0}


def test_a_slow_start_of_all_misses_the_targets():
    """Functions that start one after the other take longer than the slowest alone."""
    made = report(ALONE, [(2.6, {"recommendations": [1]})])
    assert [target.holds for target in made.targets] == [True, False, False]
