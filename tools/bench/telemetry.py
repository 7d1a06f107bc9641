"""
What it costs to measure and to trace: the pipeline in four variants, each held against another one.

    shipped            metrics on, tracing off: the default
    without metrics    instruments that do nothing, no port
    without spans      as shipped, with spans taken out of the code's way
    traced             metrics on, one trace in a hundred recorded and sent by OTLP

Throughput is that of 16 callers in a closed loop, in rounds that alternate between the variants; ratios are taken within
a round, and their median is quoted. CPU of a request is measured while all of them serve the same modest load at the
same time, so that whatever else the machine does disturbs all alike. Metrics are scraped in the middle of each round,
several times as often as in production.

CPU time is counted in ticks of 10 ms, and one per cent is little on a machine with neighbours. So what a request does
for telemetry is also done in a loop by itself, and its time held against the CPU of a request.
"""

import http.server
import statistics
import tempfile
import threading
import timeit
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from recsys.telemetry import definitions
from recsys.telemetry.instruments import Counter, Histogram
from recsys.telemetry.tracing import NoTracer
from tools.bench.pipeline import train_demo
from tools.bench.processes import Server, drive, free_port, started
from tools.bench.report import Report, Row, Target

Outcome = Mapping[str, float]
Round = Mapping[str, Outcome]

_CALLERS = 16
_PACED_CALLERS, _PAUSE_MS = 4, 25.0
_SERVE = ("recsys.serving",)
_SHIPPED, _NO_METRICS, _NO_SPANS, _TRACED = "shipped", "without metrics", "without spans", "traced"


@dataclass(frozen=True)
class _Variant:
    server: Server
    metrics_ports: tuple[int, ...]


def measure(*, quick: bool) -> Report:
    """Measure all four."""
    rounds, seconds = (2, 0.4) if quick else (16, 2.0)
    paced_rounds, paced_s = (1, 1.0) if quick else (10, 6.0)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        # A budget that a busy machine's pauses do not use up: an answer given up on is none of telemetry's cost.
        variants = _start_all(stack, {**train_demo(Path(folder)), "REQUEST_TIMEOUT_S": "8"})
        busy: list[Round] = []
        for number in range(rounds):
            # Each has each place in turn, so that none is always the one after a pause.
            names = [*variants][number % 4 :] + [*variants][: number % 4]
            busy.append({name: _drive(variants[name], callers=_CALLERS, seconds=seconds) for name in names})
        pace = partial(_drive, callers=_PACED_CALLERS, seconds=paced_s, pause_ms=_PAUSE_MS)
        with ThreadPoolExecutor(len(variants)) as pool:
            paced: list[Round] = [
                dict(zip(variants, pool.map(pace, variants.values()), strict=True)) for _ in range(paced_rounds)
            ]
    rows = [_summarise(name, [each[name] for each in busy], [each[name] for each in paced]) for name in variants]
    errors = Target("errors", sum(row["errors"] for row in rows), "<=", 0)
    return Report("telemetry", rows, [*_targets(busy, paced), *_share_targets(paced), errors])


def _start_all(stack: ExitStack, env: Mapping[str, str]) -> dict[str, _Variant]:
    collector = stack.enter_context(_collecting())
    traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector, "OTEL_TRACES_SAMPLER_ARG": "0.01"}
    return {
        _SHIPPED: _start(stack, env, _SERVE),
        _NO_METRICS: _start(stack, env, ("tools.bench.untold", "metrics"), metrics=False),
        _NO_SPANS: _start(stack, env, ("tools.bench.untold", "traces")),
        _TRACED: _start(stack, {**env, **traced}, _SERVE),
    }


def _start(stack: ExitStack, env: Mapping[str, str], command: tuple[str, ...], *, metrics: bool = True) -> _Variant:
    names = ("extract_features", "rank_items", "recommend")
    ports = [free_port() for _ in names]
    metrics_ports = [free_port() if metrics else 0 for _ in names]
    urls = {"EXTRACT_FEATURES_URL": f"http://127.0.0.1:{ports[0]}", "RANK_ITEMS_URL": f"http://127.0.0.1:{ports[1]}"}
    processes = []
    for name, port, metrics_port in zip(names, ports, metrics_ports, strict=True):
        given = {**env, **(urls if name == "recommend" else {}), "PORT": str(port), "METRICS_PORT": str(metrics_port)}
        words = [*command, "--source", f"functions/{name}/main.py"]
        processes.append(stack.enter_context(started(words, given, port=port)))
    return _Variant(Server(" ".join(command), ports[2], tuple(processes)), tuple(filter(None, metrics_ports)))


def _drive(variant: _Variant, *, callers: int, seconds: float, pause_ms: float = 0.0) -> Outcome:
    def scrape() -> None:
        for port in variant.metrics_ports:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
                answer.read()

    scraping = threading.Timer(seconds / 2, scrape)
    scraping.start()
    outcome = drive(variant.server, callers=callers, seconds=seconds, pause_ms=pause_ms)
    scraping.join()
    return outcome


@contextmanager
def _collecting() -> Iterator[str]:
    """Take in what is sent by OTLP and throw it away; yields where."""

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def _summarise(name: str, busy: list[Outcome], paced: list[Outcome]) -> Row:
    figures = {key: statistics.median(sample[key] for sample in busy) for key in ("rps", "p50_ms", "p99_ms")}
    figures["cpu_us"] = _cpu_us(paced)
    errors = int(sum(sample["errors"] for sample in busy + paced))
    return {"variant": name, **{key: round(value, 3) for key, value in figures.items()}, "errors": errors}


def _targets(busy: list[Round], paced: list[Round]) -> Iterator[Target]:
    for text, variant, other, share in (
        ("metrics on / off", _SHIPPED, _NO_METRICS, 0.03),
        ("tracing off / without spans", _SHIPPED, _NO_SPANS, 0.01),
        ("tracing one in a hundred / off", _TRACED, _SHIPPED, 0.05),
    ):
        rps = statistics.median(each[variant]["rps"] / each[other]["rps"] for each in busy)
        cpu = _cpu_us([each[variant] for each in paced]) / _cpu_us([each[other] for each in paced])
        yield Target(f"{text}, requests a second", rps, ">=", 1 - share)
        yield Target(f"{text}, CPU of a request", cpu, "<=", 1 + share)


def _cpu_us(samples: list[Outcome]) -> float:
    return statistics.fmean(sample["cpu_us"] for sample in samples)


def _share_targets(paced: list[Round]) -> Iterator[Target]:
    request_us = min(each[_SHIPPED]["cpu_us"] for each in paced)
    for text, work, share in (
        ("what a request does for metrics", _count_request(), 0.03),
        ("what a request does for tracing that is off", _pass_on_request(), 0.01),
    ):
        yield Target(f"{text}, us", _least_us(work), "<=", share * request_us)


def _least_us(work: Callable[[], None], *, calls: int = 2000) -> float:
    return min(timeit.repeat(work, number=calls, repeat=25)) / calls * 1e6


def _count_request() -> Callable[[], None]:
    """What the instruments of all three functions are moved by for one request, ranked alone."""
    counters = [Counter(definitions.REQUESTS) for _ in range(3)]
    histograms = [Histogram(each) for each in [definitions.REQUEST_DURATION] * 3 + [definitions.HOP_DURATION] * 2]
    histograms += [Histogram(each) for each in (definitions.STORE_DURATION, definitions.BATCH_SIZE)]
    histograms += [Histogram(each) for each in [definitions.BATCH_WAIT] * 2 + [definitions.BATCH_EXECUTION]]

    def count() -> None:
        for counter in counters:
            counter.add("200")
        for histogram in histograms:
            histogram.observe(0.0123, "label")

    return count


def _pass_on_request() -> Callable[[], None]:
    """What the spans of all three functions are asked for one request, while nothing is recorded."""
    tracer = NoTracer()
    headers = [(b"name-%d" % number, b"value") for number in range(9)]

    def pass_on() -> None:
        front = tracer.begin("recommend", headers)
        for name, records in (("extract_features", 1), ("rank_items", 2)):
            hop = front.child(name)
            span = tracer.begin(name, [*headers, *hop.context()])
            for _ in range(records):
                span.record("work", began=1.0, ended=2.0, attributes={"batch.size": 1})
            span.end(status=200)
            hop.end(status=200)
        front.end(status=200)

    return pass_on
