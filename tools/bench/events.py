"""
Benchmark of one extract_features on SQLite and on Redis: event ingestion and feature requests.

    ingest    16 senders post interaction events in a closed loop
    bare      16 loops call the same store directly: no HTTP, no events, one interaction per transaction
    read      10 callers request features in a closed loop
    hello     the same 10 callers at a uvicorn app with a constant answer: the upper bound on this machine
    paced     10 callers request features, each 10 ms after its last answer: latency without queueing

Rounds alternate between the stores. Redis writes an append-only file, synced every second; SQLite a write-ahead log.
"""

import asyncio
import itertools
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import uvloop

from localkn.processes import free_port
from recstore.urls import open_store
from recsys.records import Interaction
from tools.bench.pipeline import train_demo
from tools.bench.processes import MeasuredServer, drive, medians, start_function, started
from tools.bench.redis_server import PROGRAM, redis_running
from tools.bench.report import BenchReport, BenchTarget, ReportRow
from tools.store import copy_store

_SENDERS, _READERS = 16, 10
_PAUSE_MS = 10.0
_REQUIRED_EPS = {"sqlite": 1500, "redis": 2000}


def measure(*, quick: bool) -> BenchReport:
    """Measure SQLite, and Redis if redis-server is installed."""
    rounds, seconds = (1, 0.4) if quick else (5, 2.0)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        urls = _fill(Path(folder), stack)
        env = {"AUTH": "off", "METRICS_PORT": "0"}
        servers = {
            name: start_function(stack, {**env, "FEATURE_STORE_URL": url}, "extract_features")
            for name, url in urls.items()
        }
        hello = _start_hello(stack)
        samples: dict[str, list[ReportRow]] = {name: [] for name in urls}
        for _ in range(rounds):
            for name, url in urls.items():
                samples[name].append(_sample(servers[name], hello, url, seconds=seconds))
    rows = [_summarise(name, taken) for name, taken in samples.items()]
    return BenchReport("events", rows, [target for row in rows for target in _targets(row)])


def _fill(folder: Path, stack: ExitStack) -> dict[str, str]:
    """Fill each store with the demo data; return the stores' URLs by name."""
    urls = {"sqlite": train_demo(folder)["FEATURE_STORE_URL"]}
    if PROGRAM is not None:
        server = stack.enter_context(redis_running(folder, "--appendfsync", "everysec"))
        urls["redis"] = server.url
        asyncio.run(copy_store(urls["sqlite"], server.url))
    return urls


def _start_hello(stack: ExitStack) -> MeasuredServer:
    port = free_port()
    command = ["uvicorn", "tools.bench.baselines.bare:app", "--port", str(port), "--lifespan", "off"]
    command += ["--no-access-log", "--no-server-header", "--no-date-header", "--no-proxy-headers"]
    return MeasuredServer("hello", port, (stack.enter_context(started(command, {}, port=port)),))


def _sample(server: MeasuredServer, hello: MeasuredServer, url: str, *, seconds: float) -> ReportRow:
    ingest = drive(server, callers=_SENDERS, seconds=seconds, work="interactions")
    bare = uvloop.run(_apply_bare(url, seconds=seconds))
    read = drive(server, callers=_READERS, seconds=seconds, work="features")
    bare_read = drive(hello, callers=_READERS, seconds=seconds, work="features")
    paced = drive(server, callers=_READERS, seconds=seconds, work="features", pause_ms=_PAUSE_MS)
    return {
        "ingest_eps": ingest["rps"],
        "ingest_p99_ms": ingest["p99_ms"],
        "bare_eps": bare,
        "read_rps": read["rps"],
        "read_p50_ms": read["p50_ms"],
        "hello_p50_ms": bare_read["p50_ms"],
        "paced_p50_ms": paced["p50_ms"],
        "errors": int(ingest["errors"] + read["errors"] + bare_read["errors"] + paced["errors"]),
    }


async def _apply_bare(url: str, *, seconds: float) -> float:
    """Return the events per second that the store takes one by one from 16 loops in this process."""
    store = open_store(url)
    numbers = itertools.count()
    end = time.monotonic() + seconds

    async def send() -> int:
        sent = 0
        while time.monotonic() < end:
            await store.apply([next(interactions)])
            sent += 1
        return sent

    def make() -> Iterator[Interaction]:
        for number in numbers:
            user, item, when = f"user_{number % 1000 + 1}", f"item_{number % 997}", time.time_ns()
            yield Interaction("/bench/bare", f"{when}-{number}", user, "view", when // 1000, item)

    interactions = make()
    began = time.monotonic()
    sent = sum(await asyncio.gather(*(send() for _ in range(_SENDERS))))
    took_s = time.monotonic() - began
    await store.aclose()
    return sent / took_s


def _summarise(store: str, samples: list[ReportRow]) -> ReportRow:
    return {
        "store": store,
        **medians(samples, **dict.fromkeys(samples[0], 3)),
        "errors": sum(sample["errors"] for sample in samples),
    }


def _targets(row: ReportRow) -> list[BenchTarget]:
    name = row["store"]
    return [
        BenchTarget(f"{name}: events per second, {_SENDERS} senders", row["ingest_eps"], ">=", _REQUIRED_EPS[name]),
        BenchTarget(f"{name}: events per second / bare store", row["ingest_eps"] / row["bare_eps"], ">=", 0),
        BenchTarget(f"{name}: features p50 of {_READERS} paced callers, ms", row["paced_p50_ms"], "<=", 1),
        BenchTarget(f"{name}: features p50 of {_READERS} callers, ms", row["read_p50_ms"], "<=", 1),
        BenchTarget(f"{name}: features p50 / hello p50", row["read_p50_ms"] / row["hello_p50_ms"], ">=", 0),
        BenchTarget(f"{name}: errors", row["errors"], "<=", 0),
    ]
