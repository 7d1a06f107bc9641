"""
Benchmark of coalescing: the pipeline on the local platform behind Envoy, with one instance of each function.

    together   coalesces the calls of both hops, as in the manifests
    features   coalesces the calls of extract_features only
    apart      sends every call as its own request

Rounds alternate between the three. CPU covers the whole platform: Envoy, the functions, the supervisor.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from tools.bench.pipeline import train_demo
from tools.bench.processes import LoopFigures, MeasuredServer, drive, in_turns, summarise
from tools.bench.report import BenchReport, BenchTarget, ReportRow
from tools.running import run_verb, verb_up

_SYSTEMS = {
    "together": ("4", "16"),
    "features": ("4", "0"),
    "apart": ("0", "0"),
}


def measure(*, quick: bool) -> BenchReport:
    """Measure the three configurations at 1 and 32 callers."""
    rounds, seconds = (1, 0.4) if quick else (9, 2.0)
    samples: dict[tuple[str, int], list[LoopFigures]] = {}
    with ExitStack() as stack:
        trained = stack.enter_context(tempfile.TemporaryDirectory())
        train_demo(Path(trained))
        servers = [stack.enter_context(_platform(trained, name, *limits)) for name, limits in _SYSTEMS.items()]
        for number in range(rounds):
            for callers in (1, 32):
                for server in in_turns(servers, number):
                    outcome = drive(server, callers=callers, seconds=seconds)
                    samples.setdefault((server.name, callers), []).append(outcome)
    rows = [summarise(system, callers, taken) for (system, callers), taken in samples.items()]
    return BenchReport("coalescing", rows, _targets(rows))


@contextmanager
def _platform(trained: str, name: str, features: str, ranking: str) -> Iterator[MeasuredServer]:
    """Run the pipeline on localkn, with a copy of the state *trained* and one instance of each function."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(trained, folder, dirs_exist_ok=True)
        with verb_up(Path(folder)) as port:
            for service in ("extract-features", "rank-items"):
                run_verb("kn", "service", "update", service, "--scale", "1..1", state_dir=Path(folder))
            limits = [f"FEATURES_COALESCE_IN_FLIGHT={features}", f"RANKING_COALESCE_IN_FLIGHT={ranking}"]
            env = [word for limit in limits for word in ("--env", limit)]
            run_verb("kn", "service", "update", "recommend", "--scale", "1..1", *env, state_dir=Path(folder))
            yield MeasuredServer(name, port, tuple(_processes(folder)))


def _processes(folder: str) -> Iterator[psutil.Process]:
    """Yield the supervisor of *folder* and its child processes, except instances of the replaced first revisions."""
    for process in psutil.process_iter(["cmdline"]):
        if any(word.startswith(folder) for word in process.info["cmdline"] or ()):
            yield process
            for child in process.children(recursive=True):
                if not child.environ().get("K_REVISION", "").endswith("-00001"):
                    yield child
            return


def _targets(rows: list[ReportRow]) -> list[BenchTarget]:
    found = {(row["system"], row["callers"]): row for row in rows}
    many = found["together", 32]["rps"] / found["apart", 32]["rps"]
    lone = found["together", 1]["p50_ms"] / found["apart", 1]["p50_ms"]
    return [
        BenchTarget("together / apart, rps at 32 callers", many, ">=", 1.5),
        BenchTarget("together / apart, p50 at 1 caller", lone, "<=", 1.05),
        BenchTarget("errors", sum(row["errors"] for row in rows), "<=", 0),
    ]
