"""Serve the metrics of an instance on a separate port, with the limits of every server."""

import asyncio
import logging
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from uvicorn.server import ServerState

from chassis.server.caller_watch import Receive, Send
from chassis.server.config import configure
from chassis.server.limits import ServerLimits
from chassis.telemetry.exposition import Exposition
from chassis.wire.headers import find_header

# Few scrapers share this port, and each of them keeps its connection.
_LIMITS = ServerLimits(connections=256)

log = logging.getLogger("chassis")


@asynccontextmanager
async def metrics_served(exposition: Exposition, *, host: str, port: int) -> AsyncIterator[None]:
    """
    Serve *exposition* on *host*:*port* at any path until the block ends; serve nothing if *port* is 0.

    A port that is taken is logged, and the block runs without metrics.
    """
    if not port:
        yield
        return
    config = configure(_application(exposition), limits=_LIMITS, lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    serve: Any = config.http_protocol_class
    try:
        server = await asyncio.get_running_loop().create_server(
            lambda: serve(config=config, server_state=state, app_state={}), host, port
        )
    except OSError as error:
        log.error("metrics_port_taken", extra={"port": port, "reason": error.strerror})  # noqa: TRY400 - no trace needed
        yield
        return
    try:
        yield
    finally:
        server.close()
        for connection in list(state.connections):
            connection.shutdown()


def _application(exposition: Exposition) -> Any:
    registry = CollectorRegistry()
    registry.register(exposition)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)

    async def answer(scope: MutableMapping[str, Any], _receive: Receive, send: Send) -> None:
        encode, content_type = choose_encoder(find_header(scope["headers"], b"accept") or "")
        # Encoding takes milliseconds. A thread does it, so that the event loop can answer requests.
        body = await asyncio.to_thread(encode, registry)
        headers = [(b"content-type", content_type.encode()), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return answer
