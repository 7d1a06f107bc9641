import json

import pytest

from tools.bench.__main__ import BENCHES, main


@pytest.mark.scenario
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", BENCHES)
def test_every_benchmark_runs_at_a_small_size(name, capsys):
    """Every benchmark runs, and its JSON has rows, the environment, and targets with figures."""
    assert main([name, "--quick", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["bench"] == name
    assert report["rows"]
    assert {"python", "machine", "cpus", "numpy"} <= report["environment"].keys()
    assert all(
        isinstance(target["value"], int | float) and target["op"] in {"<=", ">="} for target in report["targets"]
    )
