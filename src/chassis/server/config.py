"""Configure uvicorn in the same way for each HTTP server of the project."""

from functools import partial
from typing import Any

import uvicorn

from chassis.server.connection import ServerConnection
from chassis.server.limits import Refusals, ServerLimits, raise_descriptor_limit

KEEP_ALIVE_S = 120


def configure(
    app: Any,
    *,
    connection: type[ServerConnection] = ServerConnection,
    limits: ServerLimits | None = None,
    keep_alive_s: int = KEEP_ALIVE_S,
    **options: Any,
) -> uvicorn.Config:
    """
    Return the configuration of a server of the ASGI application *app*.

    Also raises the limit of file descriptors, and allows fewer connections if descriptors are few.

    Args:
        app: The application.
        connection: Class of the connections.
        limits: Resources that callers may use.
        keep_alive_s: How long an idle connection is kept.
        options: Further options of uvicorn.
    """
    fitting = (limits or ServerLimits()).fit(raise_descriptor_limit())
    serve: Any = partial(connection, limits=fitting, refusals=Refusals())
    return uvicorn.Config(
        app,
        http=serve,
        ws="none",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=keep_alive_s,
        **options,
    )
