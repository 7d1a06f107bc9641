"""
The chassis of an HTTP function: everything that a function needs apart from its own logic.

    wire       headers, JSON decoding, problem documents, CloudEvents, connections for HTTP and to Redis
    telemetry  metrics, traces, logs
    batching   which requests are processed together
    auth       which callers are admitted
    hop        calls from one function to another
    server     lifecycle, limits and drain of an instance

The chassis knows neither recommendations nor Knative. It stands under recsys, localkn, knbroker and the dashboard.

A stage imports the names below from `chassis`. Each name is loaded when it is first used, so a stage that calls no
other function does not load the HTTP client.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chassis.batching.batcher import Batcher as Batcher
    from chassis.batching.queue import BatchLimits as BatchLimits
    from chassis.call import Call as Call
    from chassis.call import Handler as Handler
    from chassis.call import Reply as Reply
    from chassis.environment import Reader as Reader
    from chassis.hop.client import HopClient as HopClient
    from chassis.server.asgi import as_function as as_function
    from chassis.server.service import Service as Service
    from chassis.server.settings import ServingSettings as ServingSettings
    from chassis.wire.decoder import Decoder as Decoder
    from chassis.wire.problems import ServingError as ServingError
    from chassis.wire.transport import HttptoolsTransport as HttptoolsTransport

_MODULES = {
    "BatchLimits": "batching.queue",
    "Batcher": "batching.batcher",
    "Call": "call",
    "Decoder": "wire.decoder",
    "Handler": "call",
    "HopClient": "hop.client",
    "HttptoolsTransport": "wire.transport",
    "Reader": "environment",
    "Reply": "call",
    "Service": "server.service",
    "ServingError": "wire.problems",
    "ServingSettings": "server.settings",
    "as_function": "server.asgi",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    if name not in _MODULES:
        raise AttributeError(f"module 'chassis' has no attribute {name!r}")
    return getattr(importlib.import_module(f"chassis.{_MODULES[name]}"), name)
