"""
The chassis of an HTTP function: everything that a function needs apart from its own logic.

    wire       headers, JSON decoding, problem documents, CloudEvents, HTTP connections
    telemetry  metrics, traces, logs
    batching   which requests are processed together
    auth       which callers are admitted
    hop        calls from one function to another
    server     lifecycle, limits and drain of an instance

The chassis knows neither recommendations nor Knative. It stands under recsys, localkn, knbroker and the dashboard.
"""
