"""
Benchmark of the dashboard: CPU and memory of its process while it watches five instances of each function.

    idle    no page is open; the dashboard samples the platform and writes its history
    open    one page is open: a client sends the requests of src/kndashboard/static/page.js with the same periods
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from kubeyaml.annotations import SCALING
from localkn.address import read_status, ready_instances
from tools.bench.processes import MeasuredServer
from tools.bench.report import BenchReport, BenchTarget, ReportRow
from tools.running import run_verb, verb_up

_INSTANCES = 5
_START_TIMEOUT_S = 120.0
# Periods of the page's requests, seconds. The charts of 15 minutes have a point every 5 seconds.
_PERIODS_S = {"state": 1, "events": 5, "logs": 5, "about": 10, "changes": 10}
_CHARTS_S = 2
_MOST_SHARE, _MOST_BYTES = 0.01, 64_000_000


def measure(*, quick: bool) -> BenchReport:
    """Run the demo's pipeline with five instances of each function, and measure the process of its dashboard."""
    instances, seconds = (1, 4.0) if quick else (_INSTANCES, 60.0)
    with tempfile.TemporaryDirectory() as folder, _running(Path(folder), instances=instances) as (dashboard, url):
        rows = [_sample(dashboard, url, seconds=seconds, is_open=is_open) for is_open in (False, True)]
    worst = {figure: max(row[figure] for row in rows) for figure in ("core_percent", "rss_mb")}
    return BenchReport(
        "page",
        rows,
        [
            BenchTarget("CPU of the dashboard, % of a core", worst["core_percent"], "<=", _MOST_SHARE * 100),
            BenchTarget("memory of the dashboard, MB", worst["rss_mb"], "<=", _MOST_BYTES / 1e6),
        ],
    )


@contextmanager
def _running(state: Path, *, instances: int) -> Iterator[tuple[MeasuredServer, str]]:
    """Start the pipeline with *instances* of each function; yield the dashboard's process and its address."""
    with verb_up(state):
        platform = state / "platform"
        status = read_status(platform)
        for name in status["services"]:
            scale = f"{SCALING}/min-scale={instances}"
            run_verb("kn", "service", "update", name, "--annotation", scale, state_dir=state)
        _await_instances(platform, instances)
        url = status["dashboard"]
        yield MeasuredServer("dashboard", httpx.URL(url).port or 0, (_dashboard_of(platform),)), url


def _await_instances(platform: Path, instances: int) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        services = read_status(platform)["services"].values()
        if all(ready_instances(service) >= instances for service in services):
            return
        time.sleep(0.2)
    raise RuntimeError(f"after {_START_TIMEOUT_S:g} s some function has fewer than {instances} instances")


def _dashboard_of(platform: Path) -> psutil.Process:
    """Return the process of the dashboard. localkn holds its port too, so the port does not identify it."""
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
        if "kndashboard" in words and str(platform) in words:
            return process
    raise RuntimeError(f"no dashboard shows {platform}")


def _sample(dashboard: MeasuredServer, url: str, *, seconds: float, is_open: bool) -> ReportRow:
    with httpx.Client(base_url=url, timeout=10) as client:
        newest = _load(client) if is_open else 0.0
        began, cpu_s = time.monotonic(), dashboard.cpu_s()
        for second in range(int(seconds)):
            if is_open:
                newest = _look(client, second, newest=newest)
            time.sleep(max(0.0, began + second + 1 - time.monotonic()))
        spent_s = time.monotonic() - began
        return {
            "page": "open" if is_open else "idle",
            "core_percent": round((dashboard.cpu_s() - cpu_s) / spent_s * 100, 2),
            "rss_mb": round(dashboard.processes[0].memory_info().rss / 1e6, 1),
        }


def _load(client: httpx.Client) -> float:
    """Send the requests of a page that is opened; return the time of the newest point of the charts."""
    for path in _PERIODS_S:
        client.get(f"/_dashboard/{path}").raise_for_status()
    return _read_charts(client, after=0.0)


def _look(client: httpx.Client, second: int, *, newest: float) -> float:
    """Send the requests that are due at *second*; return the time of the newest point of the charts."""
    for path, period_s in _PERIODS_S.items():
        if second % period_s == 0:
            client.get(f"/_dashboard/{path}").raise_for_status()
    return _read_charts(client, after=newest) if second % _CHARTS_S == 0 else newest


def _read_charts(client: httpx.Client, *, after: float) -> float:
    found = client.get("/_dashboard/history", params={"minutes": 15, "after": after}).raise_for_status().json()
    return float(found["begin"] + (found["points"] - 1) * found["step"])
