"""The verbs `load` and `plan` on a pipeline with the tutorial's simulated costs."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from localkn.processes import free_port
from tests.demo import DemoState
from tests.e2e.verbs import started, verb
from tests.running import CLIENT, ROOT

pytestmark = [pytest.mark.scenario, pytest.mark.alone, pytest.mark.may_block, pytest.mark.timeout(300)]

# These tests do not measure speed, so the limits leave room for a busy machine.
PATIENT = {"MAX_P50_MS": "9000", "MAX_P99_MS": "9000", "MAX_FAIL_RATIO": "0.2", "MAX_DEGRADED_RATIO": "0.5"}
# The simulated latency dominates, so other load on the machine hardly changes the measurement.
MAX_BATCH_SIZE, INSTANCES, BATCH_MS = 4, 2, 300


@dataclass(frozen=True)
class Pipeline:
    """A running pipeline, and the verbs applied to it."""

    state: Path
    port: int

    def verb(self, *words: str, status: int = 0, **limits: str) -> subprocess.CompletedProcess[str]:
        return verb(*words, "--state-dir", str(self.state), status=status, **limits)

    def load(self, folder: Path, *words: str, status: int = 0, **limits: str) -> tuple[dict[str, Any], str]:
        ended = self.verb("load", "--report", str(folder), *words, status=status, **limits)
        return json.loads((folder / "report.json").read_text()), ended.stdout


@pytest.fixture(scope="module")
def pipeline(demo_state: DemoState, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    state = tmp_path_factory.mktemp("state")
    demo_state.copy_to(state)
    with started(state, "--simulate-latency") as port:
        yield Pipeline(state, port)


def test_a_spike_scales_out(pipeline, tmp_path):
    """Under a spike the report shows more than one instance of the ranker, and contains its pictures."""
    result, said = pipeline.load(tmp_path, "--shape", "spike", "--users", "60", "--duration", "24", **PATIENT)
    assert said.startswith("PASS: ")
    assert re.search(r"rank-items 1 to [2-5] instances", said)
    ranker = result["platform"]["services"]["rank-items"]
    assert ranker["ready"][0] == 1
    assert max(ranker["ready"]) > 1
    assert max(ranker["desired"]) > 1
    kinds = {each["kind"]: each["requests"] for each in result["kinds"]}
    assert min(kinds[kind] for kind in ("returning", "newcomer", "event", "mistake")) > 0
    assert result["summary"]["wrong"] == 0
    assert result["run"]["histories_known"] == 1000
    assert max(int(size) for size in result["batches"]) > 1
    # A report without failed and degraded answers has no chart of them.
    assert (tmp_path / "report.html").read_text().count("<svg") in {7, 8}


def test_an_open_loop_keeps_its_rate(pipeline, tmp_path):
    """Requests are sent at the requested rate, independent of the latency of the answers."""
    result, said = pipeline.load(tmp_path, "--rate", "20", "--arrivals", "constant", "--duration", "6", **PATIENT)
    assert said.startswith("PASS: ")
    assert result["summary"]["requests"] == 119
    assert result["summary"]["late_p99_ms"] >= 0
    assert result["run"]["loop"] == "open, constant"


def test_a_broken_limit_fails(pipeline, tmp_path):
    """A latency limit that cannot be met makes the verb fail with a verdict that names the limit."""
    result, said = pipeline.load(tmp_path, "--users", "2", "--duration", "3", "--no-events", status=1, MAX_P99_MS="1")
    assert said.startswith("FAIL: MAX_P99_MS ")
    assert not result["run"]["events"]
    assert "FAIL: MAX_P99_MS" in (tmp_path / "report.html").read_text()


def test_an_invalid_limit_is_refused(pipeline):
    """A limit that is not a number is refused before any request."""
    assert "MAX_P99_MS" in pipeline.verb("load", "--duration", "1", status=2, MAX_P99_MS="fast").stderr


@pytest.mark.parametrize("words", [["load", "--duration", "1"], ["plan", "--rps", "10", "--p99-ms", "500"]])
def test_a_missing_pipeline_is_an_error(words, tmp_path):
    """The verb says that nothing answers and names the command that starts the pipeline."""
    nowhere = Pipeline(tmp_path, free_port())
    told = nowhere.verb(*words, "--port", str(nowhere.port), status=1).stderr.strip()
    assert told.splitlines()[-1].startswith(f"http://127.0.0.1:{nowhere.port} does not answer")
    assert "./run.sh up --detach" in told


def test_another_service_is_not_a_pipeline(pipeline):
    """The verb refuses a URL that answers but is not recommend."""
    status = json.loads(pipeline.verb("status", "--json").stdout)
    url = status["services"]["rank-items"]["url"]
    assert "is not the pipeline" in pipeline.verb("load", "--url", url, "--duration", "1", status=1).stderr


def test_an_unreachable_goal_is_refused(pipeline):
    """A latency goal below that of a single request has no plan, and the error gives figures."""
    words = ["plan", "--rps", "10", "--p99-ms", "20", "--levels", "1,2", "--step-s", "1"]
    assert "settings reach a p99 of 20 ms" in pipeline.verb(*words, status=1).stderr


def test_the_plan_predicts_the_measured_ceiling(pipeline):
    """
    The ceiling predicted from a few callers is within 20 % of the throughput of many callers.

    The sweep never saturates the pipeline, so the prediction uses the fitted cost of a batch, the largest batch and the
    number of rankers.
    """
    settings: dict[str, dict[str, float]] = {
        "rank-items": {
            "MAX_BATCH_SIZE": MAX_BATCH_SIZE,
            "SIMULATED_LATENCY_S": BATCH_MS / 1000,
            "REQUEST_TIMEOUT_S": 8,
        },
        "recommend": {"REQUEST_TIMEOUT_S": 8, "RANKING_COALESCE_IN_FLIGHT": 0},
        "extract-features": {"REQUEST_TIMEOUT_S": 8},
    }
    for name, environment in settings.items():
        scale = "{0}..{0}".format(INSTANCES if name == "rank-items" else 1)
        words = [word for key, value in environment.items() for word in ("--env", f"{key}={value}")]
        pipeline.verb("kn", "service", "update", name, "--scale", scale, *words)
    compared = []
    for _ in range(3):
        words = ["--rps", "100", "--p99-ms", "5000", "--levels", "1,2,3", "--step-s", "4", "--json"]
        plan = json.loads(pipeline.verb("plan", *words).stdout)
        predicted = plan["predicted"]["ready_rps"]
        measured = measure(pipeline.port, callers=2 * INSTANCES * MAX_BATCH_SIZE)
        assert max(each["rps"] for each in plan["steps"]) < 0.6 * measured
        assert plan["batch"]["fixed_ms"] + plan["batch"]["per_item_ms"] > BATCH_MS
        compared.append((predicted, measured))
        if abs(predicted / measured - 1) <= 0.2:
            break
    else:
        raise AssertionError(f"the predicted rate differs by more than 20 % from the measured rate: {compared}")
    assert set(plan["components"]) == {"recommend", "extract-features", "rank-items"}
    assert plan["predicted"]["p99_ms"] <= 5000


def measure(port: int, *, callers: int) -> float:
    """Return the recommendations per second that *callers* callers get, measured by a separate generator."""
    assert CLIENT.post(f"http://127.0.0.1:{port}", json={"user_id": "user_1"}).status_code == 200
    command = [sys.executable, "-m", "tools.bench.closed_loop", "--port", str(port), "--callers", str(callers)]
    ended = subprocess.run([*command, "--seconds", "8"], cwd=ROOT, capture_output=True, text=True, check=True)
    outcome = json.loads(ended.stdout)
    assert outcome["errors"] == 0
    return float(outcome["rps"])
