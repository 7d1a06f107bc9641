"""
The metrics of recommending, beside those that every function has (`chassis.telemetry.definitions`).

`DEFINITIONS` lists both: docs/metrics.md is generated from it, dashboards and alerts are compared with it by a test.
"""

from chassis.telemetry import definitions
from chassis.telemetry.definitions import LATENCY_BUCKETS, Definition

MODEL = Definition(
    "recsys_model_info", "gauge", "rank_items", "Always 1; says which artefact ranks.", "-", ("name", "version")
)
MODEL_LOAD = Definition(
    "recsys_model_load_seconds", "gauge", "rank_items", "Reading and verifying the artefact.", "Slow: slow volume."
)
INDEX_RECALL = Definition(
    "recsys_index_recall_ratio",
    "gauge",
    "rank_items",
    "Share of the exact answer that the index finds, measured at the start; 1 where the whole catalogue is scored.",
    "Below what you promised: raise INDEX_PROBES.",
)
MODEL_AGE = Definition(
    "recsys_model_age_seconds",
    "gauge",
    "rank_items",
    "Since the artefact was written.",
    "Old: has training stopped? New items are not recommended before they are trained on.",
)
DEGRADED = Definition(
    "recsys_degraded_total",
    "counter",
    "recommend",
    "Answers given without a hop: features (strangers' defaults) or ranking (the popular list).",
    "Callers see results, but poor ones: treat as errors of that hop.",
    ("hop",),
)
SERVED_EVENTS = Definition(
    "recsys_served_events_total",
    "counter",
    "recommend",
    "Events about answers by outcome: sent, dropped (queue full), failed (sink).",
    "dropped or failed: the sink is away or too slow; the feedback loop learns from less.",
    ("outcome",),
)
STORE_DURATION = Definition(
    "recsys_store_duration_seconds",
    "histogram",
    "extract_features",
    "A round trip to the feature store: read or apply.",
    "Reads above a few milliseconds: the store is far or busy.",
    ("operation",),
    LATENCY_BUCKETS,
)
STORE_ERRORS = Definition(
    "recsys_store_errors_total",
    "counter",
    "extract_features",
    "Round trips that failed.",
    "The store is away or locked; reads degrade, events are sent again by their broker.",
    ("operation",),
)
EVENTS = Definition(
    "recsys_events_total",
    "counter",
    "extract_features",
    "Interaction events by outcome: accepted, repeated (counted before), rejected (malformed).",
    "rejected: a producer sends what will never work; it is in the broker's dead letters.",
    ("outcome",),
)

DEFINITIONS = (
    *definitions.DEFINITIONS,
    *(value for value in list(vars().values()) if isinstance(value, Definition)),
)
