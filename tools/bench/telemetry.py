"""
What it costs to measure and to trace: the pipeline in a closed loop, each variant beside the one it is held against.

    shipped            metrics on, tracing off: the default
    without metrics    instruments that do nothing, no port
    without spans      as shipped, with spans taken out of the code's way
    traced             metrics on, one trace in a hundred recorded and sent by OTLP

Rounds alternate between them; ratios are taken within a round, and their medians quoted. Metrics are scraped in the middle
of each round, several times as often as in production. CPU of a request is the steadier figure on a busy machine.
"""

import http.server
import statistics
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tools.bench.pipeline import train_demo
from tools.bench.processes import Server, drive, free_port, started
from tools.bench.report import Report, Row, Target

_CALLERS = 16
_SERVE = ("recsys.serving",)
_SHIPPED, _NO_METRICS, _NO_SPANS, _TRACED = "shipped", "without metrics", "without spans", "traced"


@dataclass(frozen=True)
class _Variant:
    server: Server
    metrics_ports: tuple[int, ...]


def measure(*, quick: bool) -> Report:
    """Measure all four under 16 callers."""
    rounds, seconds = (2, 0.4) if quick else (20, 2.0)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        env = train_demo(Path(folder))
        traced = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": stack.enter_context(_collecting()),
            "OTEL_TRACES_SAMPLER_ARG": "0.01",
        }
        variants = {
            _SHIPPED: _start(stack, env, _SERVE),
            _NO_METRICS: _start(stack, env, ("tools.bench.untold", "metrics"), metrics=False),
            _NO_SPANS: _start(stack, env, ("tools.bench.untold", "traces")),
            _TRACED: _start(stack, {**env, **traced}, _SERVE),
        }
        samples: list[dict[str, dict[str, float]]] = []
        for number in range(rounds):
            # Each has each place in turn, so that none is always the one after a pause.
            names = [*variants][number % 4 :] + [*variants][: number % 4]
            samples.append({name: _drive(variants[name], seconds=seconds) for name in names})
    rows = [_summarise(name, [sample[name] for sample in samples]) for name in variants]
    return Report(
        "telemetry", rows, [*_targets(samples), Target("errors", sum(row["errors"] for row in rows), "<=", 0)]
    )


def _start(stack: ExitStack, env: Mapping[str, str], command: tuple[str, ...], *, metrics: bool = True) -> _Variant:
    ports = [free_port() for _ in range(3)]
    metrics_ports = [free_port() if metrics else 0 for _ in range(3)]
    urls = {"EXTRACT_FEATURES_URL": f"http://127.0.0.1:{ports[0]}", "RANK_ITEMS_URL": f"http://127.0.0.1:{ports[1]}"}
    processes = []
    for name, port, metrics_port in zip(
        ("extract_features", "rank_items", "recommend"), ports, metrics_ports, strict=True
    ):
        given = {**env, **(urls if name == "recommend" else {}), "PORT": str(port), "METRICS_PORT": str(metrics_port)}
        words = [*command, "--source", f"functions/{name}/main.py"]
        processes.append(stack.enter_context(started(words, given, port=port)))
    return _Variant(Server(" ".join(command), ports[2], tuple(processes)), tuple(filter(None, metrics_ports)))


def _drive(variant: _Variant, *, seconds: float) -> dict[str, float]:
    def scrape() -> None:
        for port in variant.metrics_ports:
            httpx.get(f"http://127.0.0.1:{port}/metrics").raise_for_status()

    scraping = threading.Timer(seconds / 2, scrape)
    scraping.start()
    outcome = drive(variant.server, callers=_CALLERS, seconds=seconds)
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


def _summarise(name: str, samples: list[dict[str, float]]) -> Row:
    figures = {
        key: statistics.median(sample[key] for sample in samples) for key in ("rps", "p50_ms", "p99_ms", "cpu_us")
    }
    errors = int(sum(sample["errors"] for sample in samples))
    return {"variant": name, **{key: round(value, 3) for key, value in figures.items()}, "errors": errors}


def _targets(samples: list[dict[str, dict[str, float]]]) -> Iterator[Target]:
    for text, variant, other, share in (
        ("metrics on / off", _SHIPPED, _NO_METRICS, 0.03),
        ("tracing off / without spans", _SHIPPED, _NO_SPANS, 0.01),
        ("tracing one in a hundred / off", _TRACED, _SHIPPED, 0.05),
    ):
        rps, cpu = (
            statistics.median(sample[variant][figure] / sample[other][figure] for sample in samples)
            for figure in ("rps", "cpu_us")
        )
        yield Target(f"{text}, requests a second", rps, ">=", 1 - share)
        yield Target(f"{text}, CPU of a request", cpu, "<=", 1 + share)
