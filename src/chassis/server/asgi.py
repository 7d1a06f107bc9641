"""
Connect a service to functions-framework and to ASGI.

`as_function` makes the asynchronous function that functions-framework registers and runs under its own command.
`Shell` is the application that the production server runs. It sends requests for the service's paths directly to the
service, and all others through the framework's application. docs/adr/0001-own-entry-point.md has the measurements.
"""

import asyncio
import contextlib
import gc
import logging
import os
from collections.abc import Callable, MutableMapping
from types import FunctionType
from typing import Any, cast

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from chassis.call import Reply, headers_of
from chassis.server.caller_watch import ClientDisconnectedError, Receive, Send
from chassis.server.framework import http
from chassis.server.joined_writes import TurnWrites
from chassis.server.load import report_load
from chassis.server.metrics import metrics_served
from chassis.server.refusals import response_of
from chassis.server.service import Service, log_failed_start

# The garbage collector starts once this many more objects have been created than freed.
_COLLECT_EVERY = 20_000

log = logging.getLogger("chassis")


def as_function(service: Service) -> FunctionType:
    """Return *service* as a functions-framework HTTP function; the service stays reachable as its attribute."""

    async def handle(request: Request) -> Response:
        try:
            return response_of(await service.answer(request.scope, request.receive))
        except ClientDisconnectedError:
            return Response(status_code=499)

    handle.service = service  # type: ignore[attr-defined]
    return cast("FunctionType", http(handle))


def service_of(framework: Starlette) -> Service:
    """
    Return the service behind an application made by `create_asgi_app`.

    The framework wraps the function with `functools.wraps`, which copies its attributes.
    """
    service = getattr(framework.routes[0], "endpoint").service  # noqa: B009 - BaseRoute does not declare it
    if not isinstance(service, Service):
        raise TypeError("the function was not made by chassis.server.as_function")
    return service


class Shell:
    """
    The ASGI application of one instance.

    Args:
        framework: The application functions-framework made of the function.
        service: The service behind it.
        on_failed_start: Called when the service cannot start, so that the instance can end.

    Attributes:
        service: The service behind it.
        turn_writes: Sends the answers of its connections.
    """

    def __init__(self, framework: Starlette, service: Service, *, on_failed_start: Callable[[], None]) -> None:
        self._framework = framework
        self.service = service
        self.turn_writes = TurnWrites()
        self._on_failed_start = on_failed_start

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one connection's scope."""
        if scope["type"] == "http" and scope["path"] in {"/", "/livez", "/readyz"}:
            with contextlib.suppress(ClientDisconnectedError):
                await _send_reply(await self.service.answer(scope, receive), send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await self._framework(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        """Run the lifespan. The server listens while the service warms up, and `/readyz` answers 503 until then."""
        await receive()
        settings = self.service.settings
        async with metrics_served(self.service.exposition, host=settings.host, port=settings.metrics_port):
            await self._live_exposed(receive, send)

    async def _live_exposed(self, receive: Receive, send: Send) -> None:
        background = {asyncio.create_task(self._start())}
        if self.service.settings.stats_socket:
            settings = self.service.settings
            background.add(
                asyncio.create_task(report_load(self.service.load, path=settings.stats_socket, pod=settings.pod))
            )
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await self.service.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _start(self) -> None:
        try:
            await self.service.start(before_ready=settle_memory)
        except Exception as error:  # noqa: BLE001 - any error is logged and ends the instance
            log_failed_start(error)
            self._on_failed_start()
        else:
            log.info("ready", extra={"function": self.service.name, "pid": os.getpid()})


def settle_memory() -> None:
    """
    Exclude the objects that exist now from garbage collection, and collect less often.

    Modules and models live as long as the process, and requests leave few reference cycles. Python's default, a
    collection every 700 objects, costs more than it frees. The start of a server switches collection off; this function
    switches it on.
    """
    gc.collect()
    gc.freeze()
    gc.enable()
    gc.set_threshold(_COLLECT_EVERY)


async def _send_reply(reply: Reply, send: Send) -> None:
    await send({"type": "http.response.start", "status": reply.status, "headers": headers_of(reply)})
    await send({"type": "http.response.body", "body": reply.body})
