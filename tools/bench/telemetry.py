"""
Benchmark of metrics and traces: one pipeline, switched between four states while it serves.

    shipped            metrics on, tracing off: the default
    without metrics    instruments do nothing
    without spans      as shipped, and spans do nothing
    traced             metrics on, one trace in a hundred recorded and sent by OTLP

Sixteen callers run in a closed loop. A round has one slice of a third of a second in each state, and each ratio compares
two slices of the same round. The report has the mean ratio and its standard error. Load from other processes varies by
much more than telemetry costs, so the benchmark takes many rounds. Metrics are scraped every 15 seconds, as in
production.

A second measurement runs the telemetry calls of one request in a loop, and compares their time with the CPU time of a
request.
"""

import http.server
import signal
import statistics
import tempfile
import threading
import time
import timeit
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from chassis.telemetry import definitions
from chassis.telemetry.instruments import Counter, Histogram
from chassis.telemetry.tracing import NoTracer
from localkn.processes import free_port
from recsys import metrics
from tools.bench.pipeline import train_demo
from tools.bench.processes import MeasuredServer, addresses, in_turns, medians, start_function, trimmed_mean
from tools.bench.report import BenchReport, BenchTarget, ReportRow
from tools.bench.switched import NO_METRICS, NO_SPANS, SHIPPED, STATES, TRACED

Round = Mapping[str, Mapping[str, float]]

_CALLERS = 16
_SCRAPE_EVERY_S = 15.0
# Time for a process to enter a new state.
_TURN_S = 0.01


class SwitchedTelemetry:
    """A pipeline whose telemetry can be switched. Its metrics are scraped every 15 seconds."""

    def __init__(self, server: MeasuredServer, metrics_ports: Sequence[int], state_file: Path) -> None:
        self._server = server
        self._metrics_ports = metrics_ports
        self._state_file = state_file
        self._scrape_at = time.monotonic() + _SCRAPE_EVERY_S

    def run(self, state: str, *, seconds: float) -> Mapping[str, float]:
        """Load the pipeline in *state*; return requests per second, latency in ms, CPU us per request, errors."""
        self._state_file.write_text(state)
        for process in self._server.processes:
            process.send_signal(signal.SIGUSR1)
        time.sleep(_TURN_S)
        if time.monotonic() >= self._scrape_at and state != NO_METRICS:
            self._scrape_at += _SCRAPE_EVERY_S
            threading.Thread(target=self._scrape).start()
        return self._server.load(callers=_CALLERS, seconds=seconds)

    def _scrape(self) -> None:
        for port in self._metrics_ports:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
                answer.read()


def measure(*, quick: bool) -> BenchReport:
    """Measure the four states."""
    rounds, seconds = (2, 0.3) if quick else (160, 0.33)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        pipeline = _start(stack, Path(folder))
        measured: list[Round] = [
            {state: pipeline.run(state, seconds=seconds) for state in in_turns(STATES, number)}
            for number in range(rounds)
        ]
    rows = [_summarise(state, measured) for state in STATES]
    errors = BenchTarget("errors", sum(row["errors"] for row in rows), "<=", 0)
    return BenchReport("telemetry", rows, [*_targets(measured), *_share_targets(measured), errors])


def _start(stack: ExitStack, folder: Path) -> SwitchedTelemetry:
    state_file = folder / "state"
    state_file.write_text(SHIPPED)
    env = {
        **train_demo(folder),
        # A long budget: on a busy machine, timeouts would distort the comparison.
        "REQUEST_TIMEOUT_S": "8",
        "SWITCH": str(state_file),
        "OTEL_EXPORTER_OTLP_ENDPOINT": stack.enter_context(_collecting()),
        "OTEL_TRACES_SAMPLER_ARG": "0.01",
    }
    names = ("extract_features", "rank_items", "recommend")
    metrics_ports = [free_port() for _ in names]
    servers: list[MeasuredServer] = []
    for name, metrics_port in zip(names, metrics_ports, strict=True):
        given = {**env, **addresses(servers), "METRICS_PORT": str(metrics_port)}
        servers.append(start_function(stack, given, name, program="tools.bench.switched"))
    return SwitchedTelemetry(servers[-1].joined("switched", servers[:-1]), metrics_ports, state_file)


@contextmanager
def _collecting() -> Iterator[str]:
    """Run an OTLP collector that discards everything; yield its URL."""

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


def _summarise(state: str, measured: Sequence[Round]) -> ReportRow:
    slices = [each[state] for each in measured]
    ratio, error = _mean_ratio(measured, "cpu_us", state, SHIPPED)
    return {
        "state": state,
        **medians(slices, rps=3, p50_ms=3, cpu_us=3),
        "cpu / shipped": f"{ratio:.3f} +- {error:.3f}",
        "errors": int(sum(each["errors"] for each in slices)),
    }


def _targets(measured: Sequence[Round]) -> Iterator[BenchTarget]:
    for text, state, other, share in (
        ("metrics on / off", SHIPPED, NO_METRICS, 0.03),
        ("tracing off / without spans", SHIPPED, NO_SPANS, 0.01),
        ("tracing one in a hundred / off", TRACED, SHIPPED, 0.05),
    ):
        ratio, error = _mean_ratio(measured, "rps", state, other)
        yield BenchTarget(f"{text}, requests per second, +- {error:.3f}", ratio, ">=", 1 - share)


def _mean_ratio(measured: Sequence[Round], figure: str, state: str, other: str) -> tuple[float, float]:
    return trimmed_mean([each[state][figure] / each[other][figure] for each in measured])


def _share_targets(measured: Sequence[Round]) -> Iterator[BenchTarget]:
    request_us = statistics.median(each[SHIPPED]["cpu_us"] for each in measured)
    for text, work, share in (
        ("metrics calls of one request", _metrics_work(), 0.03),
        ("tracing calls of one request, tracing off", _tracing_work(), 0.01),
    ):
        yield BenchTarget(f"{text}, us", _least_us(work), "<=", share * request_us)


def _least_us(work: Callable[[], None], *, calls: int = 2000) -> float:
    return min(timeit.repeat(work, number=calls, repeat=25)) / calls * 1e6


def _metrics_work() -> Callable[[], None]:
    """Return a function that updates the instruments as all three functions do for one request, in a batch of one."""
    counters = [Counter(definitions.REQUESTS) for _ in range(3)]
    histograms = [Histogram(each) for each in [definitions.REQUEST_DURATION] * 3 + [definitions.HOP_DURATION] * 2]
    histograms += [Histogram(each) for each in (metrics.STORE_DURATION, definitions.BATCH_SIZE)]
    histograms += [Histogram(each) for each in [definitions.BATCH_WAIT] * 2 + [definitions.BATCH_EXECUTION]]

    def count() -> None:
        for counter in counters:
            counter.add("200")
        for histogram in histograms:
            histogram.observe(0.0123, "label")

    return count


def _tracing_work() -> Callable[[], None]:
    """Return a function that makes the span calls of all three functions for one request that is not traced."""
    tracer = NoTracer()
    headers = [(b"name-%d" % number, b"value") for number in range(9)]

    def pass_on() -> None:
        front = tracer.begin("recommend", headers)
        for name in ("extract_features", "rank_items"):
            hop = front.child(name)
            span = tracer.begin(name, [*headers, *hop.context()])
            span.record("store", began=1.0, ended=2.0)
            span.end(status=200)
            hop.end(status=200)
        front.end(status=200)

    return pass_on
