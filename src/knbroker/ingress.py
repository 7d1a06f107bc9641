"""Receive events at `POST /NAMESPACE/BROKER`, like the broker-ingress of a cluster."""

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Lifespan

from chassis.server.body import read_body
from chassis.server.caller_watch import ClientDisconnectedError
from chassis.wire.cloudevents import explain, read
from chassis.wire.problems import BodyTooLargeError, Rejected
from knbroker.broker import Broker
from knbroker.errors import RefusedEventError
from kubeyaml.eventing import INGRESS_HOST

_SHORT_HOST = INGRESS_HOST.removesuffix(".svc.cluster.local")
_HOSTS = ("127.0.0.1", "localhost", "*.localhost", _SHORT_HOST, f"{_SHORT_HOST}.svc", INGRESS_HOST)


def application(
    broker: Broker, *, limit_bytes: int, hosts: Sequence[str] = (), lifespan: Lifespan[Starlette] | None = None
) -> Starlette:
    """
    Make the ASGI application of *broker*.

    The answer is 202 once the event is durable, 400 if the event is malformed, 404 for an unknown Broker, 413 above
    *limit_bytes*, 503 if the sender should repeat the event later, and 507 if the disk is full. `/healthz` is 200.
    The hosts are loopback names, the broker's names in a cluster and *hosts*; any other gets 400.
    """

    async def take(request: Request) -> Response:
        try:
            body = await read_body(request.headers.raw, request.receive, limit=limit_bytes)
            event = read(request.headers.raw, body)
            if event is None:
                raise RefusedEventError("neither the content type nor ce-specversion says that this is an event")
            name = "{namespace}/{broker}".format(**request.path_params)
            await broker.accept(name, event, request.headers.raw)
        except BodyTooLargeError:
            return PlainTextResponse(f"an event may have at most {limit_bytes} bytes\n", 413)
        except ClientDisconnectedError:
            return Response(status_code=499)  # The sender is no longer connected.
        except Rejected as error:
            return PlainTextResponse(f"{explain(error)}\n", 400)
        except RefusedEventError as error:
            later = {"retry-after": "1"} if error.status in {503, 507} else None
            return PlainTextResponse(f"{error}\n", error.status, headers=later)
        return Response(status_code=202)

    async def healthy(_: Request) -> Response:
        return Response()

    routes = [Route("/{namespace}/{broker}", take, methods=["POST"]), Route("/healthz", healthy)]
    # Against DNS rebinding: a page of another site must not send events, so its host is refused.
    guard = Middleware(TrustedHostMiddleware, allowed_hosts=[*_HOSTS, *hosts], www_redirect=False)
    return Starlette(routes=routes, lifespan=lifespan, middleware=[guard])
