"""
The metrics that every function has: name, type, labels, meaning, and advice for unusual values.

`recsys.metrics` defines the metrics of single functions. Names follow Prometheus' conventions: base
units, `_total` for counters. A test compares the definitions with the code, docs/reference/metrics.md, dashboards and alerts.
"""

from dataclasses import dataclass
from typing import Literal

MetricKind = Literal["counter", "gauge", "histogram"]

# From well under a millisecond to the longest budget.
LATENCY_BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
SIZE_BUCKETS = (1, 2, 4, 8, 16, 24, 32, 64, 128, 256)


@dataclass(frozen=True)
class Definition:
    """
    Describe one metric.

    Attributes:
        name: Name in the exposition, without a histogram's suffixes.
        kind: Counter, gauge or histogram.
        functions: Functions that expose it, or "all".
        meaning: Measured quantity and its unit.
        advice: How to react to an unusual value.
        labels: Names of its labels.
        buckets: Upper bounds, for a histogram.
    """

    name: str
    kind: MetricKind
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
    "5xx: find the code in recsys_errors_total. 4xx: a caller sends invalid requests.",
    ("status",),
)
REQUEST_DURATION = Definition(
    "recsys_request_duration_seconds",
    "histogram",
    "all",
    "Time from the first byte of a request in the function to its answer.",
    "Find the slow phase in the receipt (Server-Timing) of a slow request.",
    buckets=LATENCY_BUCKETS,
)
ERRORS = Definition(
    "recsys_errors_total",
    "counter",
    "all",
    "Requests answered with a problem document, by its code.",
    "`internal`: a bug; the log has its stack trace. `overloaded`: scale out. `deadline-exceeded`: check the hops.",
    ("code",),
)
IN_FLIGHT = Definition(
    "recsys_requests_in_flight",
    "gauge",
    "all",
    "Requests in progress.",
    "Compare with the autoscaling target. Far above it with max-scale reached: add capacity.",
)
READY = Definition(
    "recsys_ready",
    "gauge",
    "all",
    "1 while /readyz returns 200.",
    "0 for long: read the log; it names the missing part.",
)
START_DURATION = Definition(
    "recsys_start_duration_seconds",
    "gauge",
    "all",
    "Time from the start of the process until it is ready: the function's share of a cold start.",
    "Grows with the model and on slow disks.",
)
BUILD = Definition(
    "recsys_build_info", "gauge", "all", "Always 1; the labels name the revision.", "-", ("function", "revision")
)
QUEUE_DEPTH = Definition(
    "recsys_queue_depth",
    "gauge",
    "rank_items, recommend, extract_features",
    "Requests that wait for the model (`ranking`), for a call in flight (`hop`) or for a transaction (`ingest`).",
    "Near MAX_QUEUE_SIZE: scale out or raise CPU before requests are shed.",
    ("queue",),
)
BATCH_SIZE = Definition(
    "recsys_batch_size",
    "histogram",
    "rank_items",
    "Requests ranked together.",
    "Always 1 under load: use fewer instances or a higher target, so that requests share batches.",
    buckets=SIZE_BUCKETS,
)
BATCH_WAIT = Definition(
    "recsys_batch_wait_seconds",
    "histogram",
    "rank_items",
    "Wait before the batch ran: `fill` at a free slot, `slot` behind a running batch.",
    "`slot` near the model's time: the instance is saturated. `fill` should be close to 0.",
    ("kind",),
    LATENCY_BUCKETS,
)
BATCH_EXECUTION = Definition(
    "recsys_batch_execution_seconds",
    "histogram",
    "rank_items",
    "Time that the model takes for a batch.",
    "Grows with catalogue and batch; compare with ./run.sh bench topk.",
    buckets=LATENCY_BUCKETS,
)
BATCH_CUTS = Definition(
    "recsys_batch_cuts_total",
    "counter",
    "rank_items",
    "Batches, by the reason they were cut: full, slot_free, window, drain.",
    "Mostly `full`: add CPU or instances.",
    ("reason",),
)
BATCH_DROPPED = Definition(
    "recsys_batch_dropped_total",
    "counter",
    "rank_items",
    "Requests that left the queue without ranking: shed, expired, cancelled.",
    "`expired`: callers' budgets are shorter than the wait. `shed`: the queue is full.",
    ("reason",),
)
HOP_DURATION = Definition(
    "recsys_hop_duration_seconds",
    "histogram",
    "recommend",
    "Time of a call to another function, seen from recommend: failed calls and retries included.",
    "Far above the function's own duration: check the network and HOP_MAX_CONNECTIONS.",
    ("hop",),
    LATENCY_BUCKETS,
)
HOP_CALLS = Definition(
    "recsys_hop_calls_total",
    "counter",
    "recommend",
    "Calls by hop and outcome: ok, failed, abandoned (caller disconnected), refused (breaker open).",
    "failed: check that function's errors. refused: most recent calls failed, so the breaker is open.",
    ("hop", "outcome"),
)
HOP_RETRIES = Definition(
    "recsys_hop_retries_total",
    "counter",
    "recommend",
    "Repeated attempts: up to 15 for a call, and over time at most one for ten calls.",
    "Steadily above 0: check for restarting instances and broken connections.",
    ("hop",),
)
HOP_HEDGES = Definition(
    "recsys_hop_hedges_total",
    "counter",
    "recommend",
    "Second requests sent after slow ones, if HOP_HEDGING is on.",
    "-",
    ("hop",),
)
BREAKER = Definition(
    "recsys_breaker_state",
    "gauge",
    "recommend",
    "0 closed, 1 half-open, 2 open.",
    "Open: the function is down or answers invalid data, and answers are degraded. Restore it.",
    ("hop",),
)

DEFINITIONS = tuple(value for value in list(vars().values()) if isinstance(value, Definition))
