"""
Look for leaks: load the pipeline for long, and compare the memory and descriptors of every process before and after.

The load is recommendations through the public port, interaction events through the broker, and connections to every
server, many of them open at the same time. A tenth of each comes first, as a warm-up that is not compared.

    python -m tools.chaos.soak [--requests 200000] [--events 100000] [--connections 5000] [--json]
"""

import argparse
import asyncio
import dataclasses
import sys
import tempfile
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from chassis.server.limits import raise_descriptor_limit
from tools.bench.closed_loop import run_callers
from tools.bench.report import BenchReport, BenchTarget, ReportRow
from tools.chaos.sender import Sender
from tools.chaos.traffic import count_differing, expected_records, make_events
from tools.running import RunningPipeline, pipeline_running

_WARM_UP = 0.1
_CALLERS, _SENDERS, _USERS = 16, 16, 500
_ROUND_S = 2.0
_ANSWER_TIMEOUT_S = 60.0
_DRAIN_TIMEOUT_S = 300.0
_QUIET_S, _QUIET_TIMEOUT_S = 5, 120
_MOST_GROWTH_PERCENT = 10.0
# Allowed growth of the few descriptors that are not connections: files of a store, one set for each thread.
_MORE_DESCRIPTORS = 16
# A pool keeps a connection for each request that was in flight at its peak, which the warm-up may not have reached. A
# request of a caller uses at most seven connections: two for each call of a function, before and behind Envoy, and one
# of the broker.
_MORE_CONNECTIONS = 7 * _CALLERS


@dataclass(frozen=True)
class SoakLoad:
    """The load on the pipeline: numbers of requests, events and connections."""

    requests: int
    events: int
    connections: int

    def share(self, share: float) -> "SoakLoad":
        """Return a part of this load."""
        return SoakLoad(*(round(share * number) for number in dataclasses.astuple(self)))


@dataclass(frozen=True)
class ProcessUsage:
    """
    The memory, descriptors and connections of a process.

    Attributes:
        pid: Its process id.
        rss_mb: Resident memory.
        descriptors: Open descriptors other than established connections.
        connections: Established TCP connections, those that wait in pools included.
    """

    pid: int
    rss_mb: float
    descriptors: int
    connections: int = 0


@dataclass
class SoakFaults:
    """
    The faults that the load found.

    Attributes:
        answers: Answers that were no recommendations.
        connections: Connections whose request was not answered with 200.
        users: Users whose record is not what the events say.
        dead_letters: Events that could not be delivered.
    """

    answers: int = 0
    connections: int = 0
    users: int = 0
    dead_letters: int = 0


class Soak:
    """Loads a pipeline and notes what is wrong."""

    def __init__(self, pipeline: RunningPipeline, *, open_connections: int) -> None:
        self._pipeline = pipeline
        self._open_connections = open_connections
        self.faults = SoakFaults()

    async def apply(self, load: SoakLoad, *, name: str) -> None:
        """Apply *load*; *name* tells its events from others."""
        await self._ask(load.requests)
        await self._send(load.events, name=name)
        await self._connect(load.connections)

    async def _ask(self, count: int) -> None:
        while count > 0:
            outcome = await run_callers(self._pipeline.port, callers=_CALLERS, seconds=_ROUND_S, warm_up_share=0.0)
            self.faults.answers += outcome.errors
            count -= outcome.requests

    async def _send(self, count: int, *, name: str) -> None:
        """Send *count* events, wait until they are delivered, and compare the store with them."""
        if not count:
            return
        events = make_events(count, users=_USERS, prefix=f"soak-{name}", seed=1)
        async with aclosing(Sender(self._pipeline.broker_url)) as sender:
            await sender.send_all(events, senders=_SENDERS)
        figures = await self._pipeline.until_delivered(within_s=_DRAIN_TIMEOUT_S)
        expected, found = expected_records(events), await self._pipeline.records(f"soak-{name}_")
        self.faults.users += count_differing(expected, found)
        self.faults.dead_letters = figures["triggers"]["default/interactions"]["dead"]

    async def _connect(self, count: int) -> None:
        """Open *count* connections, keep as many open as the warm-up did, and send one request over each."""
        doors = await asyncio.to_thread(self._doors)
        # Envoy keeps a connection for each request that was in flight, which would look like a leak.
        turn = asyncio.Semaphore(_CALLERS)
        for first in range(0, count, self._open_connections):
            numbers = range(first, min(count, first + self._open_connections))
            all_answered = asyncio.Barrier(len(numbers))
            visits = (self._visit(*doors[number % len(doors)], turn, all_answered) for number in numbers)
            self.faults.connections += (await asyncio.gather(*visits)).count(False)

    def _doors(self) -> list[tuple[int, bytes]]:
        """Return the port of each server, and a path that answers 200 to GET."""
        functions = [self._pipeline.port_of(name) for name in ("extract-features", "rank-items", "recommend")]
        dashboard = int(self._pipeline.status()["dashboard"].rpartition(":")[2])
        broker = self._pipeline.port_of("broker-ingress")
        ports = [(self._pipeline.port, b"/livez"), *((port, b"/livez") for port in functions)]
        return [*ports, (broker, b"/healthz"), (dashboard, b"/_dashboard")]

    @staticmethod
    async def _visit(port: int, path: bytes, turn: asyncio.Semaphore, all_answered: asyncio.Barrier) -> bool:
        """Return whether *path* is answered with 200; keep the connection until all others are answered, too."""
        is_right, writer = False, None
        try:
            async with turn, asyncio.timeout(_ANSWER_TIMEOUT_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET %b HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % (path, port))
                is_right = (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        except OSError:
            # A timeout is one, too. The answer counts as wrong.
            pass
        await all_answered.wait()
        if writer is not None:
            writer.close()
        return is_right


async def measure_idle(pipeline: RunningPipeline) -> dict[str, ProcessUsage]:
    """Return the usage of each process once the numbers of descriptors have not changed for some seconds."""
    seen: list[dict[str, ProcessUsage]] = []
    for _ in range(_QUIET_TIMEOUT_S):
        seen.append(await asyncio.to_thread(_measure, pipeline))
        last = [
            {name: each.descriptors + each.connections for name, each in taken.items()} for taken in seen[-_QUIET_S:]
        ]
        if len(last) == _QUIET_S and all(each == last[0] for each in last):
            break
        await asyncio.sleep(1.0)
    return seen[-1]


def _measure(pipeline: RunningPipeline) -> dict[str, ProcessUsage]:
    return {name: _usage(process) for name, process in pipeline.processes().items()}


def _usage(process: psutil.Process) -> ProcessUsage:
    descriptors = process.num_fds()
    connections = sum(each.status == psutil.CONN_ESTABLISHED for each in process.net_connections("tcp"))
    return ProcessUsage(process.pid, process.memory_info().rss / 1e6, descriptors - connections, connections)


async def run(pipeline: RunningPipeline, load: SoakLoad) -> BenchReport:
    """Warm up, measure, apply the rest of *load*, measure again and compare."""
    first = load.share(_WARM_UP)
    soak = Soak(pipeline, open_connections=max(1, first.connections))
    await soak.apply(first, name="first")
    before = await measure_idle(pipeline)
    await soak.apply(load.share(1 - _WARM_UP), name="second")
    after = await measure_idle(pipeline)
    return compare(before, after, soak.faults)


def compare(before: dict[str, ProcessUsage], after: dict[str, ProcessUsage], faults: SoakFaults) -> BenchReport:
    """Return a row for each process, and the targets: nothing wrong, no process replaced, none grown by over 10 %."""
    kept = [name for name in before if name in after and after[name].pid == before[name].pid]
    rows = [_row(name, before[name], after[name]) for name in kept]
    wrong = {
        "processes that ended": len(before) - len(kept),
        "wrong answers": faults.answers,
        "connections without an answer": faults.connections,
        "users with a wrong record": faults.users,
        "dead letters": faults.dead_letters,
    }
    targets = [
        *(BenchTarget(name, number, "<=", 0) for name, number in wrong.items()),
        *(BenchTarget(f"{row['process']}: memory, %", row["rss_growth_%"], "<=", _MOST_GROWTH_PERCENT) for row in rows),
        *(
            BenchTarget(f"{row['process']}: descriptors", row["fds_after"], "<=", _most_descriptors(row))
            for row in rows
        ),
        *(
            BenchTarget(
                f"{row['process']}: connections",
                row["connections_after"],
                "<=",
                row["connections_before"] + _MORE_CONNECTIONS,
            )
            for row in rows
        ),
    ]
    return BenchReport("soak", rows, targets)


def _row(name: str, before: ProcessUsage, after: ProcessUsage) -> ReportRow:
    return {
        "process": name,
        "rss_before_mb": round(before.rss_mb, 1),
        "rss_after_mb": round(after.rss_mb, 1),
        "rss_growth_%": round((after.rss_mb / before.rss_mb - 1) * 100, 1),
        "fds_before": before.descriptors,
        "fds_after": after.descriptors,
        "connections_before": before.connections,
        "connections_after": after.connections,
    }


def _most_descriptors(row: ReportRow) -> float:
    before: int = row["fds_before"]
    return max(before * (1 + _MOST_GROWTH_PERCENT / 100), before + _MORE_DESCRIPTORS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run once and print the comparison; return 1 if something leaks or was answered wrongly."""
    parser = argparse.ArgumentParser(prog="tools.chaos.soak", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--connections", type=int, default=5_000)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    options: Any = parser.parse_args(arguments)
    raise_descriptor_limit()
    load = SoakLoad(options.requests, options.events, options.connections)
    # One instance of each function: a process that scales in cannot be compared.
    with tempfile.TemporaryDirectory() as folder, pipeline_running(Path(folder), max_scale=1) as pipeline:
        report = asyncio.run(run(pipeline, load))
    if options.json:
        print(report.to_json())
    else:
        report.show()
    return 0 if report.holds else 1


if __name__ == "__main__":
    sys.exit(main())
