"""
Benchmark of metrics and traces: the CPU time of the telemetry calls of one request, and its share of that of a request.

    metrics                   the updates of all instruments for one request, in a batch of one
    tracing off               the span calls of a request that nothing records
    one trace in a hundred    the same; the sampled traces are recorded and sent by OTLP, and a collector reads them

Each kind runs in a loop. A comparison with a pipeline whose telemetry is off would have to be finer than the differences
between two processes with the same code, and than those that other programs make.
"""

import http.server
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from chassis.telemetry import definitions, otel
from chassis.telemetry.instruments import Counter, Histogram
from chassis.telemetry.tracing import NoTracer, Tracer
from recsys import metrics
from tools.bench.pipeline import start_direct, train_demo
from tools.bench.processes import drive, start_hops, summarise
from tools.bench.report import BenchReport, BenchTarget

_CALLERS = 16


def measure(*, quick: bool) -> BenchReport:
    """Measure a request, and the three kinds of calls."""
    calls, rounds, seconds = (500, 1, 0.4) if quick else (50_000, 8, 2.0)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        env = train_demo(Path(folder))
        server = start_direct(stack, env, start_hops(stack, env))
        taken = [drive(server, callers=_CALLERS, seconds=seconds) for _ in range(rounds)]
    request = summarise("direct", _CALLERS, taken)
    with _collecting() as endpoint:
        costs_us = {
            "metrics": (_cost_us(_metrics_work(), calls), 0.03),
            "tracing off": (_tracing_cost_us(NoTracer(), calls), 0.01),
            "one trace in a hundred": (
                _tracing_cost_us(otel.make_tracer(endpoint, ratio=0.01, resource={}), calls),
                0.05,
            ),
        }
    targets = [
        BenchTarget(f"{kind}, us", cost_us, "<=", share * request["cpu_us"])
        for kind, (cost_us, share) in costs_us.items()
    ]
    return BenchReport("telemetry", [request], [*targets, BenchTarget("errors", request["errors"], "<=", 0)])


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


def _cost_us(work: Callable[[], None], calls: int, *, finish: Callable[[], None] = lambda: None) -> float:
    """Return the CPU microseconds of this process for one call of *work*; *finish* ends the work of all calls."""
    began = time.process_time()
    for _ in range(calls):
        work()
    finish()
    return (time.process_time() - began) / calls * 1e6


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


def _tracing_cost_us(tracer: Tracer, calls: int) -> float:
    """Return the CPU microseconds of the span calls of all three functions for one request."""
    headers = [(b"name-%d" % number, b"value") for number in range(9)]

    def trace() -> None:
        front = tracer.begin("recommend", headers)
        for name in ("extract_features", "rank_items"):
            hop = front.child(name)
            span = tracer.begin(name, [*headers, *hop.context()])
            span.record("store", began=1.0, ended=2.0)
            span.end(status=200)
            hop.end(status=200)
        front.end(status=200)

    return _cost_us(trace, calls, finish=tracer.close)
