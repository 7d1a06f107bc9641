"""The meaning of every environment variable; the rest of its row comes from the code."""

EVERY_FUNCTION = "every function"

MEANINGS = {
    EVERY_FUNCTION: {
        "HOST": "address to listen on; the containers set 0.0.0.0",
        "PORT": "port to listen on; set by Knative",
        "METRICS_PORT": (
            "port for [metrics](metrics.md) in Prometheus' format; 0 disables it; localkn replaces it with a free port"
        ),
        "K_REVISION": "name of the revision, shown in receipts; set by Knative",
        "MAX_BODY_BYTES": "longer bodies get 413",
        "REQUEST_TIMEOUT_S": "budget of a request without `X-Request-Timeout-Ms`; at most `MAX_REQUEST_TIMEOUT_S`",
        "MAX_REQUEST_TIMEOUT_S": "longest budget granted; 8 for the two inner functions in `knative/`",
        "KEEP_ALIVE_S": (
            "time for the head of the next request on a connection, from its start or last answer; Knative's "
            "queue-proxy pools connections for 90 s"
        ),
        "DRAIN_LINGER_S": "after SIGTERM, how long idle connections may still bring a request",
        "DRAIN_TIMEOUT_S": "after SIGTERM, how long requests in flight may take",
        "LOCALKN_STATS": "set by localkn: the socket to which the instance reports its concurrency",
        "LOCALKN_POD": "set by localkn: the instance's name in these reports",
        "AUTH": (
            "who may call: `tokens` (a file), `jwt` (an issuer's signatures), `off`; there is no default, so that "
            "public access is a decision"
        ),
        "AUTH_TOKENS_FILE": (
            "with `tokens`: one token a line (visible ASCII without `#`), optionally followed by its expiry (ISO 8601); a "
            "`#` at the start of a line or after a space begins a comment. Checked for changes every second. A function "
            "does not start with an invalid line; later, an invalid line revokes its token and is logged"
        ),
        "AUTH_JWT_ISSUER": "with `jwt`: the required claim `iss`",
        "AUTH_JWT_AUDIENCE": "with `jwt`: the required claim `aud`",
        "AUTH_JWKS_URL": (
            "with `jwt`: the http(s) address of the issuer's keys. While the issuer is unavailable or publishes something "
            "unusable, known keys stay valid; without keys, requests get 503"
        ),
        "AUTH_JWT_LEEWAY_S": "with `jwt`: accepted clock difference",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "OTLP collector for spans, over HTTP; without it no span is recorded",
        "OTEL_TRACES_SAMPLER_ARG": (
            "share of traces recorded if they start here; other traces follow their caller's decision"
        ),
    },
    "extract_features": {
        "FEATURE_STORE_URL": (
            "`sqlite:///relative.db`, `sqlite:////absolute.db`, `redis://HOST:PORT/DB`, `rediss://…` (TLS; "
            "`?ssl_ca_certs=FILE`), `memory:`"
        ),
        "FEATURE_STORE_PASSWORD": "password for Redis, if the URL has none",
        "RECSYS_DECLARATION": (
            "a file with the [declaration](../how-to/declare-your-data.md) that the store must agree with, or the instance "
            "does not start; `-` follows the store's"
        ),
        "EVENT_DEDUPLICATION_S": "how long an event's source and id are remembered, so that a repeated event counts once",
        "USER_TTL_S": "with Redis: a user without events for this time is deleted; 0: never",
        "REPLY_TO_INTERACTIONS": (
            "1: answer an interaction with the event `dev.recsys.features.updated.v1` instead of an empty 202"
        ),
        "SIMULATED_LATENCY_S": "added to each request, for demonstrations",
        "HISTORY_LIMIT": "length of the history in answers, newest items first",
        "EXPOSURES": "1: keep what recommend [showed](../how-to/measure-what-is-shown.md), and what users did with it",
        "EXPOSURE_RETENTION_S": "age from which exposures and actions are deleted",
        "EXPOSURES_PER_USER": "most exposures, and most actions, that the log keeps for each user; the newest stay",
    },
    "rank_items": {
        "MAX_BATCH_SIZE": "most requests in a batch",
        "BATCH_WAIT_TIMEOUT_S": (
            "how long a free slot waits for requests whose bodies are being read; below `REQUEST_TIMEOUT_S`"
        ),
        "MAX_QUEUE_SIZE": "requests that may wait; further requests get 503; at least `MAX_BATCH_SIZE`",
        "INDEX": "`exact` scores the whole catalogue; `ivf` scores the groups of items nearest to the user",
        "INDEX_PROBES": "with `ivf`: groups scored for each user",
        "RULES": (
            "JSON with the [rules](../../functions/rank_items/README.md#rules) of every list: `allow`, `deny`, `pins`, "
            "`boosts`, `caps`, `diversity`, `filters`; `{}` keeps those of the declaration"
        ),
        "RECSYS_DECLARATION": (
            "a file with the [declaration](../how-to/declare-your-data.md) that the model must agree with, or the instance "
            "does not start; `-` follows the model's. The file's rules replace the model's"
        ),
        "CATALOGUE_URL": (
            "the feature store whose changes of items the instance takes over, as FEATURE_STORE_URL; `-` for none"
        ),
        "FEATURE_STORE_PASSWORD": "password for the Redis of CATALOGUE_URL, if the URL has none",
        "UNAVAILABLE_ITEMS_PATH": (
            "a file of item ids, one a line, that are not recommended; a change takes effect within a second"
        ),
        "MODEL_PATH": (
            "folder of the artefact, or `s3://BUCKET/PREFIX` in an [object store](../how-to/deliver-a-model.md), whose "
            "client reads the usual `AWS_*` variables"
        ),
        "INDEX_MIN_RECALL": (
            "with `ivf`: share of the exact answer that the index must find, measured at start; below it the instance "
            "does not start"
        ),
        "EXECUTION_PROVIDER": (
            "`cpu` or `cuda`: what runs the ONNX files of [your own model](../how-to/bring-your-model.md); with `cuda`, an "
            "instance without a GPU, or without an ONNX file, does not start"
        ),
        "SIMULATED_LATENCY_S": "added to each batch, for demonstrations",
        "CPU_LIMIT": "CPUs of this instance: the number of threads that score a large catalogue",
    },
    "recommend": {
        "EXTRACT_FEATURES_URL": "address of extract_features; a host without a dot gets the namespace of the pod",
        "RANK_ITEMS_URL": "address of rank_items; the same",
        "HOP_MAX_CONNECTIONS": "most connections to each of them",
        "SERVICE_TOKEN_FILE": (
            "tokens to send to them; the first valid line is sent; checked for changes every second"
        ),
        "HOP_HEDGING": "1: if a call exceeds the observed p95, send a second one and use the first answer",
        "FEATURES_COALESCE_IN_FLIGHT": (
            "calls to extract_features in flight before further calls wait and are combined "
            "([ADR 8](../adr/0008-coalescing.md)); 0: never combine"
        ),
        "RANKING_COALESCE_IN_FLIGHT": "the same for rank_items; 4 at most while its model takes at most 10 ms for a batch",
        "RANKING_COALESCE_CALLS": (
            "most calls to rank_items in a request while its model takes more than 10 ms for a batch; "
            "4 in `knative/`, because the autoscaler counts a request once"
        ),
        "POPULAR_LIST_PATH": "file that keeps the popular list over a restart",
        "POPULAR_LIST_REFRESH_S": "how often the popular list is fetched",
        "CORS_ORIGINS": "origins whose pages may call, such as `https://shop.example`, with commas between them; `*` for all",
        "SHADOW_RANK_ITEMS_URL": "address of a rank_items that ranks copies of calls and serves none of its lists",
        "SHADOW_SHARE": "share of the calls to rank_items that are copied",
        "EXPERIMENTS": (
            "the running experiments, JSON; `./run.sh experiments` writes it ([guide](../how-to/run-an-experiment.md)); "
            "`-` for none"
        ),
        "EXPLORATION": (
            "share of the lists in which one position is drawn at random, and how little the scores count in the draw: "
            '`{"share": 0.1, "temperature": 0.5}` ([ADR 48](../adr/0048-exploration.md)); `-` draws nothing'
        ),
        "WAKE_URLS": "functions to wake when the process starts, separated by spaces; `components/zero` sets them",
        "K_SINK": "set by Knative: where events about answers go",
        "SERVED_EVENTS_GROUP": (
            "answers in one of these events; 1: an event for each answer, "
            "more: `dev.recsys.recommendation.served.group.v1` about all answers of half a second"
        ),
        "K_CE_OVERRIDES": "set by Knative: further attributes of these events",
    },
}
