"""
Benchmark of the whole pipeline in a closed loop, compared with FastAPI services that do the same work.

    direct        our three functions, connected without a platform
    fused         the same three handlers in one process
    monolith      one FastAPI process, no hops
    composition   three FastAPI services with httpx's default client between them

All systems run on the same data. Rounds alternate between them, and the report has the medians.
"""

import asyncio
import contextlib
import io
import resource
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec
import uvloop

from chassis.call import Call, Deadline
from chassis.hop.client import HopClient
from chassis.receipt import Receipt
from chassis.wire.transport import HttptoolsTransport
from localkn.processes import free_port
from offline.state import StateDirectory
from offline.train import TrainingPlan, run
from tools.bench.processes import (
    LoopFigures,
    MeasuredServer,
    addresses,
    drive,
    in_turns,
    start_function,
    start_hops,
    started,
    summarise,
)
from tools.bench.report import BenchReport, BenchTarget, ReportRow

_HOP_CALLERS = 10


def measure(*, quick: bool) -> BenchReport:
    """Measure the four systems at 1, 10, 32 and 64 callers, and the CPU time of one hop call."""
    levels, rounds, seconds = ((1, 4), 1, 0.4) if quick else ((1, 10, 32, 64), 8, 2.0)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        env = train_demo(Path(folder))
        hops = start_hops(stack, env)
        servers = [
            start_direct(stack, env, hops),
            start_function(stack, env, "fused"),
            _start_baseline(stack, env, "monolith", "monolith:app"),
            _start_composition(stack, env),
        ]
        rows = [row for callers in levels for row in _compare(servers, callers=callers, rounds=rounds, seconds=seconds)]
        hop_us = uvloop.run(_measure_hop(hops[0].port, calls=200 if quick else 5000))
    return BenchReport("pipeline", rows, _targets(rows, hop_us, busy=levels[-2:][0] if quick else 32))


def train_demo(folder: Path) -> dict[str, str]:
    """Train on the demo data in *folder*; return the environment variables for serving the result."""
    with contextlib.redirect_stdout(io.StringIO()):
        run(TrainingPlan(state_dir=folder))
    state = StateDirectory(folder)
    current = state.current()
    if current is None:
        raise RuntimeError(f"training on the demo data left no model in {folder}")
    return {
        "AUTH": "off",
        "FEATURE_STORE_URL": state.store_url(current),
        "MODEL_PATH": str(state.model_path(current)),
        "OPENBLAS_NUM_THREADS": "1",
    }


def start_direct(stack: ExitStack, env: Mapping[str, str], hops: Sequence[MeasuredServer]) -> MeasuredServer:
    """Serve recommend, connected to *hops* without a platform."""
    return start_function(stack, {**env, **addresses(hops)}, "recommend").joined("direct", hops)


def _start_baseline(stack: ExitStack, env: Mapping[str, str], name: str, app: str) -> MeasuredServer:
    port = free_port()
    command = ["uvicorn", "--log-level", "warning", "--port", str(port), f"tools.bench.baselines.{app}"]
    return MeasuredServer(name, port, (stack.enter_context(started(command, env, port=port)),))


def _start_composition(stack: ExitStack, env: Mapping[str, str]) -> MeasuredServer:
    hops = [_start_baseline(stack, env, name, f"composition:{name}") for name in ("extract_features", "rank_items")]
    front = _start_baseline(stack, {**env, **addresses(hops)}, "recommend", "composition:recommend")
    return front.joined("composition", hops)


def _compare(servers: list[MeasuredServer], *, callers: int, rounds: int, seconds: float) -> list[ReportRow]:
    outcomes: dict[str, list[LoopFigures]] = {server.name: [] for server in servers}
    for number in range(rounds):
        for server in in_turns(servers, number):
            outcomes[server.name].append(drive(server, callers=callers, seconds=seconds))
    return [summarise(name, callers, samples) for name, samples in outcomes.items()]


async def _measure_hop(port: int, *, calls: int) -> float:
    """Return this process's CPU microseconds per call of a hop, with ten concurrent callers."""
    transport = HttptoolsTransport()
    client = HopClient("extract_features", f"http://127.0.0.1:{port}", transport=transport)

    async def call_often() -> None:
        for number in range(calls // _HOP_CALLERS):
            call = Call(b"", [], "bench", Receipt(time.monotonic()), Deadline.after(10))
            body = b'{"user_id":"user_%d"}' % (number % 1000 + 1)
            await client.send(body, call=call, within_s=10, decode=msgspec.json.Decoder(msgspec.Raw).decode)

    before = resource.getrusage(resource.RUSAGE_SELF)
    await asyncio.gather(*(call_often() for _ in range(_HOP_CALLERS)))
    after = resource.getrusage(resource.RUSAGE_SELF)
    await transport.aclose()
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / calls * 1e6


def _targets(rows: list[ReportRow], hop_us: float, *, busy: int) -> list[BenchTarget]:
    found = {(row["system"], row["callers"]): row for row in rows}

    def ratio(figure: str, system: str, other: str, callers: int) -> float:
        return float(found[system, callers][figure]) / float(found[other, callers][figure])

    ours = sum(row["errors"] for row in rows if row["system"] in {"direct", "fused"})
    return [
        BenchTarget(f"direct / monolith, rps at {busy} callers", ratio("rps", "direct", "monolith", busy), ">=", 0.9),
        BenchTarget(
            f"direct / composition, rps at {busy} callers", ratio("rps", "direct", "composition", busy), ">=", 12
        ),
        BenchTarget(f"fused / monolith, rps at {busy} callers", ratio("rps", "fused", "monolith", busy), ">=", 1.5),
        BenchTarget("direct / monolith, p50 at 1 caller", ratio("p50_ms", "direct", "monolith", 1), "<=", 2.5),
        BenchTarget("errors of direct and fused", ours, "<=", 0),
        BenchTarget("CPU of one hop call at 10 callers, us", hop_us, "<=", 200),
    ]
