"""
The metrics of recommending, beside those that every function has (`chassis.telemetry.definitions`).

`DEFINITIONS` lists both: docs/reference/metrics.md is generated from it, dashboards and alerts are compared with it by a test.
"""

from chassis.telemetry import definitions
from chassis.telemetry.definitions import LATENCY_BUCKETS, Definition

MODEL = Definition(
    "recsys_model_info",
    "gauge",
    "rank_items",
    "Always 1; the labels name the artefact in use.",
    "-",
    ("name", "version"),
)
MODEL_LOAD = Definition(
    "recsys_model_load_seconds",
    "gauge",
    "rank_items",
    "Time to read and verify the artefact.",
    "High: check the volume.",
)
INDEX_RECALL = Definition(
    "recsys_index_recall_ratio",
    "gauge",
    "rank_items",
    "Share of the exact answer that the index finds, measured at start; 1 if the whole catalogue is scored.",
    "Too low: raise INDEX_PROBES.",
)
MODEL_AGE = Definition(
    "recsys_model_age_seconds",
    "gauge",
    "rank_items",
    "Time since the artefact was written.",
    "High: check the training job. New items are recommended only after training.",
)
MODEL_BEHIND = Definition(
    "recsys_model_behind",
    "gauge",
    "rank_items",
    "1 if the instance cannot read the object store that MODEL_PATH names, or refuses the model there; else 0.",
    "1: the instance serves the former model; see model_place_unavailable and model_refused in the log.",
)
CATALOGUE = Definition(
    "recsys_catalogue_revision",
    "gauge",
    "rank_items",
    "Changes of the catalogue that the instance has taken over; 0 without CATALOGUE_URL.",
    "Differs between instances for more than 5 s: see catalogue_unavailable and catalogue_not_applied in the log.",
)
RANKING = Definition(
    "recsys_ranking_seconds_total",
    "counter",
    "rank_items",
    "Time of the batches, by phase: candidates (every source scores items), blend (scores are combined and sorted), "
    "ranker (features are computed and shortlists scored), rules (lists are arranged).",
    "candidates grows with the catalogue and with long histories, ranker with the declared features, rules with caps "
    "and diversity.",
    ("phase",),
)
DRIFT_REQUESTS = Definition(
    "recsys_drift_requests_total",
    "counter",
    "rank_items",
    "A sample of the requests of known users, by the bucket of their features and of the score in fifth place.",
    "Compare with recsys_drift_expected_ratio: rules.yaml computes the population stability index.",
    ("measure", "bucket", "version"),
)
DRIFT_EXPECTED = Definition(
    "recsys_drift_expected_ratio",
    "gauge",
    "rank_items",
    "Share of each bucket in the training of the artefact; absent if the artefact does not hold it.",
    "-",
    ("measure", "bucket", "version"),
)
HISTORY_ITEMS = Definition(
    "recsys_history_items_total",
    "counter",
    "rank_items",
    "Items in a sample of the histories, by whether the model has them: known, unknown.",
    "unknown rises: train, or add the items to the catalogue.",
    ("item",),
)
DEGRADED = Definition(
    "recsys_degraded_total",
    "counter",
    "recommend",
    "Answers given without a hop: `features` (treated as an unknown user) or `ranking` (the popular list).",
    "Callers get poorer answers: treat it as failures of that function.",
    ("hop",),
)
SHADOWED = Definition(
    "recsys_shadow_calls_total",
    "counter",
    "recommend",
    "Calls to rank_items that were copied to the shadow, by outcome: compared, failed, dropped (too many in flight).",
    "failed: the candidate must not serve. dropped: it is slow, or the share is high for one instance.",
    ("outcome",),
)
SHADOW_OVERLAP = Definition(
    "recsys_shadow_overlap_ratio",
    "histogram",
    "recommend",
    "Share of a served list that the shadow's list holds as well.",
    "Low: the candidate ranks differently. Compare its offline figures before it serves.",
    buckets=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
)
SHADOW_ORDER = Definition(
    "recsys_shadow_order_ratio",
    "histogram",
    "recommend",
    "Share of the pairs of items, in both a served list and the shadow's, that the two lists order the same way.",
    "Low beside a high overlap: the candidate orders the same items differently.",
    buckets=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
)
ARM_CALLS = Definition(
    "recsys_experiment_calls_total",
    "counter",
    "recommend",
    "Calls of an arm of an experiment to the arm's own rank_items, by outcome: answered, failed (the default ranked).",
    "failed: repair the revision of the arm, or stop the arm; the analysis counts these lists as the arm's.",
    ("experiment", "arm", "outcome"),
)
SERVED_EVENTS = Definition(
    "recsys_served_events_total",
    "counter",
    "recommend",
    "Events about answers, by outcome: sent, dropped (queue full), failed (sink).",
    "dropped or failed: check the sink; it is unreachable or too slow.",
    ("outcome",),
)
STORE_DURATION = Definition(
    "recsys_store_duration_seconds",
    "histogram",
    "extract_features",
    "Time of a round trip to the feature store: read, apply, update or erase.",
    "Reads above a few milliseconds: the store is distant or busy.",
    ("operation",),
    LATENCY_BUCKETS,
)
STORE_ERRORS = Definition(
    "recsys_store_errors_total",
    "counter",
    "extract_features",
    "Failed round trips to the feature store.",
    "The store is unreachable or locked. Answers degrade, and the broker resends events.",
    ("operation",),
)
EVENTS = Definition(
    "recsys_events_total",
    "counter",
    "extract_features",
    "Events about users, by outcome: accepted, repeated (already counted, or older than the stored values), erased (refused, "
    "because the user was erased), rejected (malformed).",
    "rejected: correct the producer; the broker's dead letters have its events.",
    ("outcome",),
)
EXPOSURES = Definition(
    "recsys_exposures_total",
    "counter",
    "extract_features",
    "Exposures that the log was sent, by outcome: accepted, repeated (already kept), erased (refused, because the user "
    "was erased). Without EXPOSURES, the metric is absent.",
    "Lower than the sent events of recommend: see the broker's queue and its dead letters.",
    ("outcome",),
)
EXPOSURE_ACTIONS = Definition(
    "recsys_exposure_actions_total",
    "counter",
    "extract_features",
    "Interactions that name their exposure, by kind. Without EXPOSURES, the metric is absent.",
    "None beside exposures: the shop does not send exposure_id. ./run.sh experiments report has all outcomes.",
    ("kind",),
)

DEFINITIONS = (
    *definitions.DEFINITIONS,
    *(value for value in list(vars().values()) if isinstance(value, Definition)),
)
