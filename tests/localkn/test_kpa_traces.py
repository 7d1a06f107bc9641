"""`python -m localkn.kpa` on recorded traces: this project's, and Knative's if LOCALKN_KPA_TRACES names them."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

OURS = Path(__file__).parent / "kpa_traces.jsonl"
# An optional file of decisions by Knative itself.
REFERENCE = os.environ.get("LOCALKN_KPA_TRACES")


def replay(lines: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "localkn.kpa"]
    return subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=False)


def without_answers(trace: dict[str, Any]) -> str:
    ticks = [{"t": tick["t"], "ready": tick["ready"]} for tick in trace["ticks"]]
    return json.dumps({key: value for key, value in trace.items() if key != "resolved"} | {"ticks": ticks})


def check(lines: list[str]) -> None:
    """Assert that every tick of every trace is decided as recorded."""
    traces = [json.loads(line) for line in lines]
    done = replay([without_answers(trace) for trace in traces])
    assert done.returncode == 0, done.stderr
    for trace, line in zip(traces, done.stdout.splitlines(), strict=True):
        answer = json.loads(line)
        assert answer["name"] == trace["name"]
        assert answer["resolved"] == pytest.approx(trace["resolved"])
        for got, want in zip(answer["ticks"], trace["ticks"], strict=True):
            assert (got["valid"], got["replicas"]) == (want["valid"], want["replicas"]), (trace["name"], got, want)
            if want["valid"]:
                assert got == pytest.approx({key: want[key] for key in got}, abs=1e-6), trace["name"]


@pytest.mark.parametrize("file", [OURS, *([Path(REFERENCE)] if REFERENCE else [])])
def test_traces_are_reproduced(file: Path) -> None:
    """Every tick is decided as recorded, in this project's traces and, if available, in Knative's."""
    opener = gzip.open if file.suffix == ".gz" else open
    with opener(file, "rt") as traces:
        check(list(traces))


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "{}",
        json.dumps({"name": "x", "annotations": {"autoscaling.knative.dev/target": "x"}, "container_concurrency": 0}),
    ],
)
def test_an_invalid_line_is_named(line: str) -> None:
    """An invalid trace stops the replay with the number of its line."""
    done = replay(["", line])
    assert done.returncode == 1
    assert "line 2 is not a trace" in done.stderr
