"""
Benchmark of a cold start: from the command to the first answer of a new instance.

    ready    time until /readyz answers 200: start Python, import, open the store, load, verify and warm up the model
    import   the part of `ready` that Python and the imports take
    first    time of the first request after that
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil

from localkn.processes import free_port
from tools.bench.pipeline import train_demo
from tools.bench.processes import addresses, medians, start_hops
from tools.bench.report import BenchReport, ReportRow

_TIMEOUT_S = 60.0
REQUESTS = {
    "extract_features": {"user_id": "user_1"},
    "rank_items": {
        "features": {
            "age_group": "25-34",
            "avg_session_duration": 300.0,
            "total_purchases": 3,
            "engagement_score": 0.5,
        },
        "history": ["item_1"],
    },
    "recommend": {"user_id": "user_1"},
    "fused": {"user_id": "user_1"},
}


def measure(*, quick: bool) -> BenchReport:
    """Start every function several times, in turns."""
    rounds = 1 if quick else 7
    names = ("rank_items",) if quick else tuple(REQUESTS)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        env = train_demo(Path(folder))
        env |= addresses(start_hops(stack, env))
        env |= {"METRICS_PORT": "0"}
        samples: dict[str, list[ReportRow]] = {name: [] for name in names}
        for _ in range(rounds):
            for name in names:
                samples[name].append(_start(name, env))
        return BenchReport("coldstart", [_summarise(name, taken) for name, taken in samples.items()])


def _start(name: str, env: Mapping[str, str]) -> ReportRow:
    source = "fused/main.py" if name == "fused" else f"functions/{name}/main.py"
    imported = [sys.executable, "-c", f"import {source.removesuffix('.py').replace('/', '.')}"]
    began = time.perf_counter()
    subprocess.run(imported, env={**os.environ, **env}, check=True)
    import_s = time.perf_counter() - began
    ready_s, first_s, rss = _time([sys.executable, "-m", "chassis.server", "--source", source], env, name=name)
    return {
        "import_ms": import_s * 1000,
        "ready_ms": ready_s * 1000,
        "first_ms": first_s * 1000,
        "rss_mb": rss / 2**20,
    }


def _time(command: Sequence[str], env: Mapping[str, str], *, name: str) -> tuple[float, float, int]:
    """Return the seconds until the instance is ready, the seconds of its first request, and its memory in bytes."""
    port = free_port()
    began = time.perf_counter()
    process = subprocess.Popen(command, env={**os.environ, **env, "PORT": str(port)}, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=_TIMEOUT_S) as client:
            _await_ready(client, until=began + _TIMEOUT_S)
            ready = time.perf_counter()
            client.post("/", json=REQUESTS[name]).raise_for_status()
            return ready - began, time.perf_counter() - ready, psutil.Process(process.pid).memory_info().rss
    finally:
        process.terminate()
        process.wait(timeout=_TIMEOUT_S)


def _await_ready(client: httpx.Client, *, until: float) -> None:
    while time.perf_counter() < until:
        with contextlib.suppress(httpx.TransportError):
            if client.get("/readyz").status_code == 200:
                return
        time.sleep(0.005)
    raise RuntimeError(f"{client.base_url} is not ready after {_TIMEOUT_S:g} s")


def _summarise(name: str, samples: list[ReportRow]) -> ReportRow:
    return {"function": name, **medians(samples, **dict.fromkeys(samples[0], 1))}
