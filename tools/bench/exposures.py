"""
Benchmark of exposures and an experiment: the local pipeline, switched while it serves.

    off                            no answer is reported
    exposures                      each answer is reported and kept
    exposures and an experiment    as before, and each user is in an arm that changes nothing

A round has a slice in each state, and each ratio compares two slices of a round. The rounds go through all orders of the
states, so that no state always follows the same one. The events about a slice leave up to half a second after its answers,
so each slice ends with a pause that belongs to it. CPU time is that of all instances, of the Broker and of Envoy.
"""

import signal
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import permutations
from pathlib import Path

import msgspec

from recsys.experiments.declaration import Arm, Experiment
from tools.bench.pipeline import train_demo
from tools.bench.processes import MeasuredServer, medians, trimmed_mean
from tools.bench.report import BenchReport, BenchTarget, ReportRow
from tools.bench.switched_exposures import EXPERIMENT, EXPOSURES, OFF, STATES
from tools.running import ROOT, pipeline_running

Slice = Mapping[str, float]
Round = Mapping[str, Slice]

_COMMANDS = """
root: {root}
images:
  extract-features: {{command: [python, -m, chassis.server, --source, functions/extract_features/main.py]}}
  rank-items: {{command: [python, -m, chassis.server, --source, functions/rank_items/main.py]}}
  recommend: {{command: [python, -m, tools.bench.switched_exposures, --source, functions/recommend/main.py]}}
"""
_WARM_UP_SHARE = 0.25
# The outbox waits for half a second, the Broker and the log take the rest.
_PAUSE_S = 1.5
_SAME = Experiment("same", (Arm("one", 0.5), Arm("two", 0.5)))


class SwitchedExposures:
    """A pipeline whose exposures can be switched."""

    def __init__(self, server: MeasuredServer, state_file: Path) -> None:
        self._server = server
        self._state_file = state_file

    def run(self, state: str, *, callers: int, seconds: float) -> Slice:
        """Load the pipeline in *state*; return requests per second, latency in ms, CPU us per request, errors."""
        self._state_file.write_text(state)
        for process in self._server.processes:
            if "tools.bench.switched_exposures" in process.cmdline():
                process.send_signal(signal.SIGUSR1)
        time.sleep(0.02)
        return self._server.load(callers=callers, seconds=seconds, warm_up_share=_WARM_UP_SHARE, pause_s=_PAUSE_S)


def measure(*, quick: bool) -> BenchReport:
    """Measure the three states with 32 callers and with a lone one."""
    rounds, seconds = (2, 0.5) if quick else (18, 2.0)
    orders = list(permutations(STATES))
    rows: list[ReportRow] = []
    targets: list[BenchTarget] = []
    with tempfile.TemporaryDirectory() as folder, _started(Path(folder)) as pipeline:
        for callers in (32, 1):
            measured: list[Round] = [
                {state: pipeline.run(state, callers=callers, seconds=seconds) for state in orders[number % len(orders)]}
                for number in range(rounds)
            ]
            rows += [_summarise(state, callers, measured) for state in STATES]
            targets += _targets(callers, measured)
    errors = BenchTarget("errors", sum(row["errors"] for row in rows), "<=", 0)
    return BenchReport("exposures", rows, [*targets, errors])


@contextmanager
def _started(folder: Path) -> Iterator[SwitchedExposures]:
    train_demo(folder)
    state_file, commands = folder / "switch", folder / "commands.yaml"
    state_file.write_text(OFF)
    commands.write_text(_COMMANDS.format(root=ROOT))
    settings = [
        f"recommend:SWITCH={state_file}",
        f"recommend:EXPERIMENTS={msgspec.json.encode([_SAME]).decode()}",
        # A long budget: on a busy machine, timeouts would distort the comparison.
        "recommend:REQUEST_TIMEOUT_S=8",
    ]
    with pipeline_running(folder, max_scale=1, exposures=True, commands=commands, settings=settings) as running:
        processes = [process for name, process in running.processes().items() if name not in {"localkn", "dashboard"}]
        yield SwitchedExposures(MeasuredServer("switched", running.port, tuple(processes)), state_file)


def _summarise(state: str, callers: int, measured: Sequence[Round]) -> ReportRow:
    slices = [each[state] for each in measured]
    return {
        "state": state,
        "callers": callers,
        **medians(slices, rps=3, p50_ms=3, cpu_us=3),
        **{f"{key} / off": "{:.3f} +- {:.3f}".format(*_ratio(measured, key, state)) for key in ("rps", "cpu_us")},
        "errors": int(sum(each["errors"] for each in slices)),
    }


def _targets(callers: int, measured: Sequence[Round]) -> Iterator[BenchTarget]:
    for state in (EXPOSURES, EXPERIMENT):
        if callers > 1:
            ratio, error = _ratio(measured, "rps", state)
            yield BenchTarget(f"{state}, {callers} callers, requests per second, +- {error:.3f}", ratio, ">=", 0.95)
        else:
            added = [each[state]["p50_ms"] - each[OFF]["p50_ms"] for each in measured]
            mean, error = trimmed_mean(added)
            yield BenchTarget(f"{state}, a lone caller, added ms, +- {error:.3f}", mean, "<=", 0.1)


def _ratio(measured: Sequence[Round], figure: str, state: str) -> tuple[float, float]:
    return trimmed_mean([each[state][figure] / each[OFF][figure] for each in measured])
