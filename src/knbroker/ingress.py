"""Receive events at `POST /NAMESPACE/BROKER`, like the broker-ingress of a cluster."""

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Lifespan

from chassis.server.body import read_body, refuse_compressed
from chassis.server.refusals import LOOPBACK, REFUSALS, HostGuard
from chassis.wire.cloudevents import Event, read
from chassis.wire.problems import MalformedEventError, Rejected
from knbroker.broker import Broker
from kubeyaml.eventing import INGRESS_HOST

_SHORT_HOST = INGRESS_HOST.removesuffix(".svc.cluster.local")
_NAMES = (_SHORT_HOST, f"{_SHORT_HOST}.svc", INGRESS_HOST)


def application(
    broker: Broker, *, limit_bytes: int, hosts: Sequence[str] = (), lifespan: Lifespan[Starlette] | None = None
) -> Starlette:
    """
    Make the ASGI application of *broker*.

    The answer is 202 once the event is durable, 400 if the event is malformed, 404 for an unknown Broker, 413 above
    *limit_bytes*, 503 if the sender should repeat the event later, and 507 if the disk is full. `/healthz` is 200.
    The hosts are loopback names, the broker's names in a cluster and *hosts*; any other gets 421. A refusal is a
    problem document.
    """

    async def take(request: Request) -> Response:
        body = await read_body(request.headers.raw, request.receive, limit=limit_bytes)
        await broker.accept(
            "{namespace}/{broker}".format(**request.path_params), _read(request, body), request.headers.raw
        )
        return Response(status_code=202)

    async def healthy(_: Request) -> Response:
        return Response()

    routes = [Route("/{namespace}/{broker}", take, methods=["POST"]), Route("/healthz", healthy)]
    guard = Middleware(HostGuard, hosts=[*LOOPBACK, *_NAMES, *hosts])
    return Starlette(routes=routes, lifespan=lifespan, middleware=[guard], exception_handlers=REFUSALS)


def _read(request: Request, body: bytes) -> Event:
    try:
        refuse_compressed(request.headers.raw)
        event = read(request.headers.raw, body)
    except Rejected as error:
        # A broker answers 400 to every malformed event (Knative Eventing, data plane contract).
        refusal = MalformedEventError(error.detail if error.faults else f"{error.title}: {error.detail}")
        refusal.faults = error.faults
        raise refusal from error
    if event is None:
        raise MalformedEventError("neither the content type nor ce-specversion says that this is an event")
    return event
