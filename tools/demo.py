"""
`./run.sh demo`: run the pipeline with simulated latencies, and show how it scales out under load and in after it.

rank_items simulates 50 ms per batch and has a target of 2 requests in flight per instance. 40 callers load the
pipeline at the same time.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.live import Live
from rich.table import Table

from localkn.address import read_status, ready_instances
from tools.bench.closed_loop import LoopOutcome, run_callers

CALLERS, LOAD_S = 40, 20.0
# The default window of a minute would make the viewer wait.
WINDOW = "10s"
_SCALE_IN_TIMEOUT_S = 60.0

console = Console()


def demo(*, port: int, state_dir: Path, keep: bool = False) -> int:
    """Run the demonstration; return the exit status. With *keep*, leave the pipeline and its page running."""
    state = ["--state-dir", str(state_dir)]
    _say("Starting: recommend -> extract_features (10 ms) + rank_items (50 ms a batch)")
    _run("up", "--detach", "--simulate-latency", "--port", str(port), *state)
    try:
        _run("kn", "service", "update", "rank-items", "--scale-window", WINDOW, *state, quiet=True)
        _say("One request")
        _show_request(read_status(state_dir / "platform")["url"])
        _say(f"{CALLERS} concurrent callers for {LOAD_S:.0f} s: rank_items scales out")
        highest, outcome = asyncio.run(_load(port, state_dir))
        console.print(
            f"{outcome.requests} requests, {outcome.rps:.0f} per second, p50 {outcome.p50_ms:.0f} ms, "
            f"p99 {outcome.p99_ms:.0f} ms, {outcome.errors} errors; up to {highest} instances of rank-items"
        )
        _say("The load has ended: rank_items scales in")
        took_s = _await_scale_in(state_dir)
        console.print(f"back to one instance after {took_s:.0f} s")
        if keep:
            # `print` cuts no address in two on a narrow terminal.
            page = f"{read_status(state_dir / 'platform')['dashboard']}/_dashboard"
            print(f"{page} shows what happened; ./run.sh down stops the pipeline")
    except BaseException:
        keep = False
        raise
    finally:
        if not keep:
            _say("Stopping")
            _run("down", *state)
    return 0 if outcome.errors == 0 else 1


def _run(*words: str, quiet: bool = False) -> None:
    command = [sys.executable, "-m", "tools.cli", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL if quiet else None)


def _say(text: str) -> None:
    console.rule(f"[bold]{text}", align="left")


def _show_request(url: str) -> None:
    answer = httpx.post(url, json={"user_id": "user_42", "top_k": 3}, timeout=10)
    console.print_json(answer.text)
    console.print(answer.headers["server-timing"].replace(", ", "\n"), style="dim")


@contextmanager
def _watching() -> Iterator[Live]:
    with Live(console=console, refresh_per_second=2) as live:
        yield live
    if not console.is_terminal:
        console.print()  # rich ends the line of the last table on a terminal alone


async def _load(port: int, state_dir: Path) -> tuple[int, LoopOutcome]:
    running = asyncio.create_task(run_callers(port, callers=CALLERS, seconds=LOAD_S, users=1000))
    highest = 0
    with _watching() as live:
        while not running.done():
            services = await asyncio.to_thread(_services, state_dir)
            highest = max(highest, ready_instances(services["rank-items"]))
            live.update(_table(services))
            await asyncio.sleep(0.5)
    return highest, await running


def _await_scale_in(state_dir: Path) -> float:
    began = time.monotonic()
    with _watching() as live:
        while time.monotonic() < began + _SCALE_IN_TIMEOUT_S:
            services = _services(state_dir)
            live.update(_table(services))
            if ready_instances(services["rank-items"]) == 1:
                break
            time.sleep(0.5)
    return time.monotonic() - began


def _services(state_dir: Path) -> dict[str, Any]:
    services: dict[str, Any] = read_status(state_dir / "platform")["services"]
    return services


def _table(services: dict[str, Any]) -> Table:
    table = Table("service", "instances", "in flight", "target")
    for name, service in services.items():
        for revision in service["revisions"]:
            if revision["traffic_percent"]:
                ready, desired = revision["ready"], revision["desired"]
                table.add_row(
                    name,
                    f"{'#' * ready:5} {ready} of {desired}",
                    f"{revision['concurrency']:.1f}",
                    f"{revision['target']:g}",
                )
    return table
