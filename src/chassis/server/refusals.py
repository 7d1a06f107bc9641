"""Make a Starlette application refuse requests as the functions do: with problem documents."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from chassis.call import Reply, headers_of, problem_reply
from chassis.server.caller_watch import ClientDisconnectedError
from chassis.wire.headers import find_header
from chassis.wire.problems import MethodNotAllowedError, MisdirectedError, NotFoundError, ServingError

LOOPBACK = ("127.0.0.1", "localhost", "*.localhost")
_PORT = re.compile(r":\d*$")


class HostGuard:
    """
    Answer only requests for *hosts*, where `*.NAME` means any name below NAME.

    A page of another site can make its own name lead to this server (DNS rebinding). The browser then sends that name.
    """

    def __init__(self, app: ASGIApp, *, hosts: Sequence[str]) -> None:
        self._app = app
        self._names = frozenset(hosts)
        self._endings = tuple(host[1:] for host in hosts if host.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 421."""
        if scope["type"] == "http" and not self._is_served(find_header(scope["headers"], b"host") or ""):
            await problem_response(MisdirectedError("this server does not answer to that host"))(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _is_served(self, host: str) -> bool:
        name = _PORT.sub("", host).lower()
        return name in self._names or name.endswith(self._endings)


async def _refuse(_: Request, error: Exception) -> Response:
    return problem_response(error if isinstance(error, ServingError) else ServingError())


async def _explain(_: Request, error: Exception) -> Response:
    """Answer what Starlette refuses itself: an unknown path or method."""
    if isinstance(error, HTTPException) and error.status_code == MethodNotAllowedError.status:
        return problem_response(MethodNotAllowedError.of((error.headers or {}).get("Allow", "")))
    return problem_response(NotFoundError())


async def _leave(_: Request, _error: Exception) -> Response:
    return Response(status_code=499)  # The caller has disconnected and does not get this answer.


def problem_response(error: ServingError) -> Response:
    """Return *error* as a problem document."""
    return response_of(problem_reply(error))


def response_of(reply: Reply) -> Response:
    """Return *reply* as a response of Starlette."""
    response = Response(reply.body, status_code=reply.status)
    response.raw_headers = headers_of(reply)
    return response


REFUSALS: Mapping[Any, Any] = {
    HTTPException: _explain,
    ServingError: _refuse,
    ClientDisconnectedError: _leave,
    Exception: _refuse,
}
"""The exception handlers of such an application."""
