"""Server processes on free loopback ports, their CPU time, and closed loops against them."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeVar

import httpx
import psutil
import uvloop

from localkn.processes import free_port
from tools.bench.closed_loop import run_callers
from tools.bench.report import ReportRow

START_TIMEOUT_S = 60.0

LoopFigures = Mapping[str, float]
T = TypeVar("T")


@dataclass(frozen=True)
class MeasuredServer:
    """A server on *port*. Its CPU time is that of *processes*."""

    name: str
    port: int
    processes: tuple[psutil.Process, ...]

    def joined(self, name: str, hops: "Sequence[MeasuredServer]") -> "MeasuredServer":
        """Return this server under another name, with the processes of the *hops* that it calls."""
        return MeasuredServer(name, self.port, sum((hop.processes for hop in hops), self.processes))

    def cpu_s(self) -> float:
        """Return the CPU seconds of its processes so far."""
        return sum(_cpu_s(process) for process in self.processes)

    def load(self, *, callers: int, seconds: float, warm_up_share: float, pause_s: float) -> LoopFigures:
        """
        Load the server once.

        Args:
            callers: Number of concurrent callers of the closed loop.
            seconds: Duration of the load.
            warm_up_share: Share of the duration whose answers do not count.
            pause_s: Time after the load whose CPU time counts too.

        Returns:
            Requests per second, latency in ms, CPU us per request, and errors.
        """
        before_s = self.cpu_s()
        outcome = uvloop.run(run_callers(self.port, callers=callers, seconds=seconds, warm_up_share=warm_up_share))
        time.sleep(pause_s)
        # The CPU time includes the warm-up, so it is divided by the requests of the whole run.
        cpu_us = (self.cpu_s() - before_s) / (outcome.rps * seconds) * 1e6
        return {"rps": outcome.rps, "p50_ms": outcome.p50_ms, "cpu_us": cpu_us, "errors": outcome.errors}


def _cpu_s(process: psutil.Process) -> float:
    """Return the CPU seconds of *process*. On Linux, read its CPU clock, because psutil's figures have steps of 10 ms."""
    if sys.platform != "linux":
        return sum(process.cpu_times()[:2])
    # The clock id as clock_getcpuclockid(3) computes it; Python has no such function for other processes.
    return time.clock_gettime((~process.pid << 3) | 2)


@contextmanager
def started(command: Sequence[str], env: Mapping[str, str], *, port: int) -> Iterator[psutil.Process]:
    """Run *command* until the block ends; wait until the server on *port* is ready."""
    process = subprocess.Popen([sys.executable, "-m", *command], env={**os.environ, **env}, stderr=subprocess.DEVNULL)
    try:
        _await_ready(process, port, command)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def start_function(stack: ExitStack, env: Mapping[str, str], name: str) -> MeasuredServer:
    """Serve the function *name*, or `fused`, on a free port until *stack* is closed."""
    source = "fused/main.py" if name == "fused" else f"functions/{name}/main.py"
    port = free_port()
    process = started(["chassis.server", "--source", source], {**env, "PORT": str(port)}, port=port)
    return MeasuredServer(name, port, (stack.enter_context(process),))


def start_hops(stack: ExitStack, env: Mapping[str, str]) -> list[MeasuredServer]:
    """Serve the functions that recommend calls."""
    return [start_function(stack, env, name) for name in ("extract_features", "rank_items")]


def addresses(hops: Sequence[MeasuredServer]) -> dict[str, str]:
    """Return the environment variables that tell recommend where its hops are."""
    return {f"{hop.name.upper()}_URL": f"http://127.0.0.1:{hop.port}" for hop in hops}


def _await_ready(process: "subprocess.Popen[bytes]", port: int, command: Sequence[str]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{' '.join(command)} exited with status {process.returncode} before it was ready")
        try:
            # Baselines have no /readyz and answer 404 or 405. An instance answers 503 while it warms up.
            if httpx.get(f"http://127.0.0.1:{port}/readyz").status_code != 503:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise RuntimeError(f"{' '.join(command)} is not ready after {START_TIMEOUT_S:g} s")


def in_turns(compared: Sequence[T], number: int) -> list[T]:
    """
    Rotate *compared* by *number*, so that each round begins with another system.

    A system measured right after another load is slower.
    """
    first = number % len(compared)
    return [*compared[first:], *compared[:first]]


def drive(
    server: MeasuredServer, *, callers: int, seconds: float, work: str = "recommend", pause_ms: float = 0.0
) -> LoopFigures:
    """Run a closed loop of *callers* against *server*; return its figures, and the CPU microseconds per request."""
    command = ["tools.bench.closed_loop", "--port", str(server.port), "--callers", str(callers), "--work", work]
    command += ["--seconds", str(seconds), "--pause-ms", str(pause_ms)]
    before_s = server.cpu_s()
    ended = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=True)
    outcome: dict[str, float] = json.loads(ended.stdout)
    # The CPU time includes the warm-up, so it is divided by the requests of the whole run.
    outcome["cpu_us"] = (server.cpu_s() - before_s) / (outcome["rps"] * seconds) * 1e6
    return outcome


def summarise(system: str, callers: int, outcomes: Sequence[LoopFigures]) -> ReportRow:
    """Return the medians over the rounds, and the sum of the errors."""
    return {
        "system": system,
        "callers": callers,
        **medians(outcomes, rps=1, p50_ms=3, p99_ms=3, cpu_us=1),
        "errors": int(sum(outcome["errors"] for outcome in outcomes)),
    }


def medians(outcomes: Sequence[LoopFigures], **digits: int) -> dict[str, float]:
    """Return the median of each figure that *digits* names, rounded to that many digits."""
    return {name: round(statistics.median(each[name] for each in outcomes), most) for name, most in digits.items()}


def trimmed_mean(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and its standard error, without the lowest and highest tenth."""
    ordered = sorted(values)
    kept = ordered[len(ordered) // 10 : len(ordered) - len(ordered) // 10]
    return statistics.fmean(kept), statistics.stdev(kept) / len(kept) ** 0.5
