"""
The metrics that every function has: name, type, labels, meaning, and what to do about each.

A function's own metrics are defined beside its own code (`recsys.metrics`). Names follow Prometheus' conventions: base
units, `_total` for counters. A test compares the definitions with the code, docs/metrics.md, dashboards and alerts.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]

# From well under a millisecond to the longest budget.
LATENCY_BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
SIZE_BUCKETS = (1, 2, 4, 8, 16, 24, 32, 64, 128, 256)


@dataclass(frozen=True)
class Definition:
    """
    One metric.

    Attributes:
        name: As it is scraped, without a histogram's suffixes.
        kind: Counter, gauge or histogram.
        functions: Which functions have it; "all" for the shell's.
        meaning: What it measures, with its unit.
        advice: What to do when it looks wrong.
        labels: Names of its labels.
        buckets: Upper bounds, for a histogram.
    """

    name: str
    kind: Kind
    functions: str
    meaning: str
    advice: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


REQUESTS = Definition(
    "recsys_requests_total",
    "counter",
    "all",
    "Requests answered, by HTTP status. Probes are not counted.",
    "5xx: look at recsys_errors_total for the code. 4xx: a caller sends what the door does not take.",
    ("status",),
)
REQUEST_DURATION = Definition(
    "recsys_request_duration_seconds",
    "histogram",
    "all",
    "From a request's first byte handed over by the server to its answer.",
    "Follow the receipt (Server-Timing) of a slow request to the phase that grew.",
    buckets=LATENCY_BUCKETS,
)
ERRORS = Definition(
    "recsys_errors_total",
    "counter",
    "all",
    "Requests that ended in a problem document, by its code.",
    "`internal` is a bug: its trace is in the log. `overloaded`: scale out. `deadline-exceeded`: see the hops.",
    ("code",),
)
IN_FLIGHT = Definition(
    "recsys_requests_in_flight",
    "gauge",
    "all",
    "Requests being worked on now.",
    "Compare with the autoscaling target; well above it with max-scale reached means too little capacity.",
)
READY = Definition(
    "recsys_ready", "gauge", "all", "1 while /readyz is 200.", "0 for long: the log says what the instance waits for."
)
START_DURATION = Definition(
    "recsys_start_duration_seconds",
    "gauge",
    "all",
    "From the start of the process until it was ready: the function's share of a cold start.",
    "Grows with the model and with slow disks.",
)
BUILD = Definition(
    "recsys_build_info", "gauge", "all", "Always 1; says which revision this is.", "-", ("function", "revision")
)
QUEUE_DEPTH = Definition(
    "recsys_queue_depth",
    "gauge",
    "rank_items, recommend, extract_features",
    "Requests waiting for a slot: `ranking` for the model, `hop` for a call in flight, `ingest` for a transaction.",
    "Near MAX_QUEUE_SIZE requests are about to be shed: scale out or raise CPU.",
    ("queue",),
)
BATCH_SIZE = Definition(
    "recsys_batch_size",
    "histogram",
    "rank_items",
    "Requests ranked together.",
    "Always 1 under load: instances are too many or the target too low to ever share a batch.",
    buckets=SIZE_BUCKETS,
)
BATCH_WAIT = Definition(
    "recsys_batch_wait_seconds",
    "histogram",
    "rank_items",
    "Waited before the batch ran: `fill` in front of a free slot, `slot` behind a running batch.",
    "`slot` near the model's time: the instance is saturated. `fill` should be next to nothing.",
    ("kind",),
    LATENCY_BUCKETS,
)
BATCH_EXECUTION = Definition(
    "recsys_batch_execution_seconds",
    "histogram",
    "rank_items",
    "Model time of a batch.",
    "Grows with the catalogue and the batch; see ./run.sh bench topk.",
    buckets=LATENCY_BUCKETS,
)
BATCH_CUTS = Definition(
    "recsys_batch_cuts_total",
    "counter",
    "rank_items",
    "Batches by why they were cut: full, slot_free, window, drain.",
    "Mostly `full`: more CPU or more instances would serve sooner.",
    ("reason",),
)
BATCH_DROPPED = Definition(
    "recsys_batch_dropped_total",
    "counter",
    "rank_items",
    "Requests that left the queue unranked: shed, expired, cancelled.",
    "`expired`: callers' budgets are shorter than the queue. `shed`: the queue is full.",
    ("reason",),
)
HOP_DURATION = Definition(
    "recsys_hop_duration_seconds",
    "histogram",
    "recommend",
    "A call to another function as recommend sees it, failed or not, retries included.",
    "Far above the hop's own duration: the network, or too few connections.",
    ("hop",),
    LATENCY_BUCKETS,
)
HOP_CALLS = Definition(
    "recsys_hop_calls_total",
    "counter",
    "recommend",
    "Calls by hop and outcome: ok, failed, abandoned (by their callers), refused (by the breaker).",
    "failed: see that function's errors. refused: it failed so much that it is left alone for a moment.",
    ("hop", "outcome"),
)
HOP_RETRIES = Definition(
    "recsys_hop_retries_total",
    "counter",
    "recommend",
    "Further attempts, up to four a call; at most one in ten calls over time.",
    "Steadily above zero: instances come and go, or connections break.",
    ("hop",),
)
HOP_HEDGES = Definition(
    "recsys_hop_hedges_total",
    "counter",
    "recommend",
    "Twins sent after slow requests, where switched on.",
    "-",
    ("hop",),
)
BREAKER = Definition(
    "recsys_breaker_state",
    "gauge",
    "recommend",
    "0 closed, 1 half-open, 2 open.",
    "Open: the hop is down or answers garbage; answers are degraded meanwhile.",
    ("hop",),
)

DEFINITIONS = tuple(value for value in list(vars().values()) if isinstance(value, Definition))
