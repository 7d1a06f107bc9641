"""
Benchmark of the zero mode: from no instance at all to the first full answer, through Envoy and the activator.

    extract_features, rank_items   one function wakes alone
    recommend                      recommend wakes, and the functions that it calls are awake
    together                       a request to recommend wakes all three

Each figure is the time of one request. The windows are short, so that the functions scale to zero between two requests.
"""

import math
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from kubeyaml.annotations import SCALING
from localkn.address import read_status
from tools.bench.coldstart import REQUESTS
from tools.bench.pipeline import train_demo
from tools.bench.report import BenchReport, BenchTarget, ReportRow
from tools.running import run_verb, verb_up

_WINDOW = ("--scale-window", "6s", "--annotation", f"{SCALING}/scale-down-delay=0s")
_TIMEOUT_S = 60.0
_LONGEST_S, _LARGEST_RATIO = 2.5, 1.3
_ALONE = ("extract_features", "rank_items", "recommend")


def measure(*, quick: bool) -> BenchReport:
    """Wake the functions alone and together, several times."""
    rounds, trials = (1, 2) if quick else (5, 20)
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        train_demo(state)
        with zero_mode(state):
            alone = [_wake_alone(state) for _ in range(rounds)]
            together = [wake_together(state) for _ in range(trials)]
    return report(alone, together)


@contextmanager
def zero_mode(state: Path) -> Iterator[None]:
    """Run `./run.sh up --zero` on the state directory *state*, with short windows, until the block ends."""
    with verb_up(state, "--zero"):
        for name in _ALONE:
            run_verb("kn", "service", "update", name.replace("_", "-"), *_WINDOW, state_dir=state)
        yield


def services(state: Path) -> dict[str, dict[str, Any]]:
    """Return the Services of the running platform, each with its revisions that get traffic."""
    return {
        name: service | {"revisions": [each for each in service["revisions"] if each["traffic_percent"]]}
        for name, service in read_status(state / "platform")["services"].items()
    }


def report(alone: Sequence[Mapping[str, float]], together: Sequence[tuple[float, Mapping[str, Any]]]) -> BenchReport:
    """
    Summarise the trials.

    Args:
        alone: Seconds by function, for each round.
        together: Seconds and the answer, for each trial.
    """
    rows = [_summarise(name, [times[name] for times in alone]) for name in _ALONE]
    whole = _summarise("together", [spent_s for spent_s, _ in together])
    full = sum(is_full(answer) for _, answer in together)
    slowest_s = max(row["p95_s"] for row in rows)
    targets = [
        BenchTarget("full answers of all", full / len(together), ">=", 1.0),
        BenchTarget("p95 of together, s", whole["p95_s"], "<=", _LONGEST_S),
        BenchTarget("p95 of together / of the slowest alone", whole["p95_s"] / slowest_s, "<=", _LARGEST_RATIO),
    ]
    return BenchReport("zero", [*rows, whole], targets)


def is_full(answer: Mapping[str, Any]) -> bool:
    """Tell whether *answer* has recommendations, and all functions contributed to them."""
    return bool(answer["recommendations"]) and "degraded" not in answer


def _wake_alone(state: Path) -> dict[str, float]:
    """Wake each function alone, in the order in which recommend finds the others awake."""
    _await_zero(state)
    found = services(state)
    return {name: _ask(found[name.replace("_", "-")]["address"], name)[0] for name in _ALONE}


def wake_together(state: Path) -> tuple[float, dict[str, Any]]:
    """Wait until no function has an instance, and ask recommend; return the seconds and the answer."""
    _await_zero(state)
    return _ask(services(state)["recommend"]["url"], "recommend")


def _await_zero(state: Path) -> None:
    until = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < until:
        revisions = [revision for service in services(state).values() for revision in service["revisions"]]
        if not any(revision["instances"] for revision in revisions):
            return
        time.sleep(0.1)
    raise RuntimeError(f"the functions did not scale to zero within {_TIMEOUT_S:g} s")


def _ask(url: str, name: str) -> tuple[float, dict[str, Any]]:
    began = time.perf_counter()
    answer = httpx.post(url, json=REQUESTS[name], timeout=_TIMEOUT_S).raise_for_status()
    return time.perf_counter() - began, answer.json()


def _summarise(name: str, seconds: Sequence[float]) -> ReportRow:
    ordered = sorted(seconds)
    p95 = ordered[math.ceil(len(ordered) * 0.95) - 1]
    return {
        "woken": name,
        "trials": len(ordered),
        "p50_s": round(statistics.median(ordered), 3),
        "p95_s": round(p95, 3),
        "max_s": round(ordered[-1], 3),
    }
