"""
Serve one function: lifecycle, admission and limits around a handler that knows none of them.

A ready service is warm: the handler's parts are open and have worked once. `lifecycle` has the states.
"""

import asyncio
import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from itertools import takewhile
from typing import Any

from chassis.auth.guard import Guard, make_guard
from chassis.call import Call, Deadline, Handler, Reply, problem_reply
from chassis.environment import SettingsError
from chassis.receipt import Receipt
from chassis.server.body import body_too_large, read_body, refuse_compressed
from chassis.server.caller_watch import CallerWatch, ClientDisconnectedError, Receive, WatchStarter
from chassis.server.cors import Cors, is_preflight
from chassis.server.lifecycle import LIFECYCLE, ServiceEvent, ServiceState
from chassis.server.load import Load
from chassis.server.settings import ServingSettings
from chassis.telemetry import definitions
from chassis.telemetry.exposition import Exposition
from chassis.telemetry.instruments import Counter, Histogram, Instrument, Totals
from chassis.telemetry.process import seconds_since_start
from chassis.telemetry.tracing import NoTracer, Span, Tracer
from chassis.transitions import advance
from chassis.wire.headers import REQUEST_ID, REQUEST_TIMEOUT_MS, RawHeaders, find_header
from chassis.wire.problems import (
    DeadlineExceededError,
    MethodNotAllowedError,
    NotFoundError,
    NotReadyError,
    ServingError,
    UnsupportedMediaTypeError,
)

Scope = Mapping[str, Any]

log = logging.getLogger("chassis")

# curl -d sends a form type by default, although the body is JSON.
_JSON_TYPES = frozenset({"application/json", "application/x-www-form-urlencoded", ""})
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


class StartError(Exception):
    """The function cannot start for a reason outside its code; the message says what is wrong and what to do."""


def log_failed_start(error: Exception) -> None:
    """Log why a start failed: the reason alone if it explains itself, else with its trace."""
    if isinstance(error, StartError):
        log.error("start_failed", extra={"reason": str(error)})
    else:
        log.error("start_failed", exc_info=error)


class Service:
    """
    Serves one handler.

    Args:
        name: The function's name, for logs.
        open_handler: Opens the parts the handler needs, warms them, yields the handler and closes them after.
        settings: Limits and times.
        pages: Pages for GET, by path; they need no credentials.
        cors: Lets pages of other origins call; None lets none.
        guard: Admits callers; the settings decide if None.
        tracer: Records traces; the settings decide if None.

    Attributes:
        load: Requests in flight.
        exposition: The instance's metrics; parts add theirs.
    """

    def __init__(
        self,
        name: str,
        open_handler: Callable[[], AbstractAsyncContextManager[Handler]],
        *,
        settings: ServingSettings,
        pages: Mapping[str, Callable[[], Reply]] | None = None,
        cors: Cors | None = None,
        guard: Guard | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self.name = name
        self.settings = settings
        self.state: ServiceState = "new"
        self.load = Load()
        # Start time of each body read, keyed by reader, oldest first.
        self._reading: dict[object, float] = {}
        self._open_handler = open_handler
        self._pages = pages or {}
        self._cors = cors
        self._handler: Handler | None = None
        self._parts = AsyncExitStack()
        self._watch_starter = WatchStarter()
        self._starting = asyncio.Lock()
        self._guard = guard or make_guard(settings.auth)
        self._started_s = 0.0
        self._requests = Counter(definitions.REQUESTS)
        self._durations = Histogram(definitions.REQUEST_DURATION)
        self._errors = Counter(definitions.ERRORS, known=[("internal",), ("overloaded",)])
        self._tracer = tracer or make_tracer(settings, name)
        self.exposition = Exposition()
        self.exposition.add(self._instruments())

    async def start(self, *, before_ready: Callable[[], None] | None = None) -> None:
        """Open and warm the handler, then call *before_ready*; do nothing if the service has been started."""
        async with self._starting:
            if self.state != "new":
                return
            self._note("start")
            try:
                self._handler = await self._parts.enter_async_context(self._open_handler())
            except BaseException:
                self._note("failed")
                raise
            if before_ready is not None:
                before_ready()
            self._note("opened")
            self._started_s = seconds_since_start()

    def _note(self, event: ServiceEvent) -> None:
        self.state = advance(LIFECYCLE, self.state, event)

    def drain(self) -> None:
        """Stop being ready: requests are still answered, and the readiness probe fails."""
        self._note("drain")

    async def stop(self) -> None:
        """Close what `start` opened."""
        self._note("stop")
        self._handler = None
        await self._parts.aclose()
        await self._guard.aclose()
        await asyncio.to_thread(self._tracer.close)

    def arriving(self, *, within_s: float) -> int:
        """
        Return how many bodies are being read, not counting those begun more than *within_s* seconds ago.

        Older reads may have stalled, so a batch does not wait for them.
        """
        since = time.monotonic() - within_s
        return sum(1 for _ in takewhile(lambda began: began >= since, reversed(self._reading.values())))

    async def answer(self, scope: Scope, receive: Receive, body: bytes | None = None) -> Reply:
        """
        Answer one request. Errors of the request or the handler become answers.

        Args:
            scope: The request's method, path and headers.
            receive: The request's ASGI channel.
            body: The whole body if it has been read; otherwise it is read from *receive*.

        Raises:
            ClientDisconnectedError: the caller disconnected before the answer was ready.
        """
        request_id = _identify(scope["headers"])
        try:
            reply = await self._route(scope, receive, body, request_id)
        except ServingError as error:
            reply = self._refuse(error, request_id)
        reply = reply.with_headers((REQUEST_ID, request_id.encode("latin-1")))
        return self._cors.allow(reply, scope["headers"]) if self._cors else reply

    async def _route(self, scope: Scope, receive: Receive, body: bytes | None, request_id: str) -> Reply:
        path, method = scope["path"], scope["method"]
        if path == "/":
            if self._cors and is_preflight(method, scope["headers"]):
                return self._cors.preflight
            if method != "POST":
                raise MethodNotAllowedError.of("POST")
            return await self._measure(scope["headers"], receive, body, request_id)
        if path not in {"/livez", "/readyz", *self._pages}:
            raise NotFoundError
        if method not in {"GET", "HEAD"}:
            raise MethodNotAllowedError.of("GET, HEAD")
        if path in self._pages:
            return self._pages[path]()
        if path == "/readyz":
            await self._ensure_started()
            if self.state != "ready":
                raise NotReadyError(f"the instance is {self.state}", retry_after_s=1.0)
        return Reply(b'{"status":"ok"}')

    async def _measure(self, headers: RawHeaders, receive: Receive, body: bytes | None, request_id: str) -> Reply:
        received = time.monotonic()
        span = self._tracer.begin(self.name, headers)
        self.load.arrive()
        status = 0
        try:
            reply = await self._serve(headers, receive, request_id, received, span, body=body)
            status = reply.status
        except ServingError as error:
            reply = self._refuse(error, request_id, span)
            status = reply.status
        finally:
            self.load.leave()
            span.end(status=status)
        self._requests.add(str(reply.status))
        self._durations.observe(time.monotonic() - received)
        return reply

    async def _serve(
        self,
        headers: RawHeaders,
        receive: Receive,
        request_id: str,
        received: float,
        span: Span,
        *,
        body: bytes | None,
    ) -> Reply:
        deadline = Deadline(received + self._budget_s(headers))
        await self._guard.admit(headers, within_s=deadline.left_s())
        _check_media_type(headers)
        refuse_compressed(headers)
        if body is None:
            body = await self._read(headers, receive, deadline)
        elif len(body) > self.settings.max_body_bytes:
            raise body_too_large(self.settings.max_body_bytes)
        await self._ensure_started()
        if self._handler is None:
            raise NotReadyError(f"the instance is {self.state}", retry_after_s=1.0)
        deadline.check()
        call = Call(body, headers, request_id, Receipt(received), deadline, span)
        reply = await self._handle(self._handler, call, receive)
        call.receipt.close(revision=self.settings.revision)
        return reply.with_headers(call.receipt.header())

    async def _read(self, headers: RawHeaders, receive: Receive, deadline: Deadline) -> bytes:
        """
        Return the body.

        Raises:
            DeadlineExceededError: the body was not complete in time. The connection ends, as the rest may still come.
        """
        reader = object()
        self._reading[reader] = time.monotonic()
        try:
            async with asyncio.timeout(deadline.left_s()):
                return await read_body(headers, receive, limit=self.settings.max_body_bytes)
        except TimeoutError as error:
            raise DeadlineExceededError(headers=[("connection", "close")]) from error
        finally:
            del self._reading[reader]

    async def _handle(self, handler: Handler, call: Call, receive: Receive) -> Reply:
        try:
            with CallerWatch(receive, within_s=call.deadline.left_s(), starter=self._watch_starter):
                return await handler(call)
        except ServingError as error:
            return self._refuse(error, call.request_id, call.span)
        except TimeoutError:
            return self._refuse(DeadlineExceededError(), call.request_id, call.span)
        except ClientDisconnectedError:
            raise
        except Exception:
            log.exception("request_crashed", extra=_identity(call.request_id, call.span))
            self._errors.add(ServingError.code)
            return problem_reply(ServingError())

    def _refuse(self, error: ServingError, request_id: str, span: Span | None = None) -> Reply:
        # Probes ask a starting instance twenty times a second. That is not an error, and is not logged.
        if not isinstance(error, NotReadyError):
            self._errors.add(error.code)
            if error.status >= 500:
                # The caller does not see the cause, which may name files and hosts.
                cause = str(error.__cause__ or "")
                extra = {"code": error.code} | ({"cause": cause} if cause else {}) | _identity(request_id, span)
                log.warning("request_failed", extra=extra)
        return problem_reply(error)

    def _instruments(self) -> list[Instrument]:
        identity = (self.name, self.settings.revision)
        return [
            self._requests,
            self._durations,
            self._errors,
            Totals(definitions.IN_FLIGHT, lambda: {(): self.load.in_flight}),
            Totals(definitions.READY, lambda: {(): self.state == "ready"}),
            Totals(definitions.START_DURATION, lambda: {(): self._started_s}),
            Totals(definitions.BUILD, lambda: {identity: 1.0}),
        ]

    async def _ensure_started(self) -> None:
        # functions-framework's own command starts nothing before the first request.
        if self.state == "new":
            try:
                await self.start()
            except Exception as error:
                log_failed_start(error)
                raise NotReadyError("the instance could not start", retry_after_s=1.0) from error

    def _budget_s(self, headers: RawHeaders) -> float:
        asked = find_header(headers, REQUEST_TIMEOUT_MS)
        if asked is None:
            return self.settings.default_timeout_s
        try:
            budget_s = float(asked) / 1000
        except ValueError:
            return self.settings.default_timeout_s
        # The comparison is also false for NaN.
        return min(budget_s, self.settings.max_timeout_s) if budget_s >= 0 else self.settings.default_timeout_s


def _identity(request_id: str, span: Span | None) -> dict[str, str]:
    """Return the log fields that identify the request and its trace."""
    trace_id = span.trace_id if span else None
    return {"request_id": request_id} | ({"trace_id": trace_id} if trace_id else {})


def make_tracer(settings: ServingSettings, name: str) -> Tracer:
    """
    Return the tracer that *settings* ask for.

    Raises:
        SettingsError: packages that the tracer needs are not installed.
    """
    if not settings.trace_endpoint:
        return NoTracer()
    try:
        from chassis.telemetry import otel  # noqa: PLC0415 - a third of a second of imports
    except ImportError as error:
        raise SettingsError([f"OTEL_EXPORTER_OTLP_ENDPOINT needs a package that is missing: {error.name}"]) from error
    resource = {"service.name": name, "service.instance.id": settings.pod, "knative.revision": settings.revision}
    return otel.make_tracer(settings.trace_endpoint, ratio=settings.trace_ratio, resource=resource)


def _check_media_type(headers: RawHeaders) -> None:
    given = find_header(headers, b"content-type") or ""
    if given in _JSON_TYPES:
        return
    media_type, *parameters = (part.strip() for part in given.lower().split(";"))
    # RFC 6839, section 3.1: a type that ends in +json is JSON. Events and their data have such types.
    if media_type not in _JSON_TYPES and not media_type.endswith("+json"):
        raise UnsupportedMediaTypeError("send application/json")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip().strip('"') not in {"utf-8", "utf8"}:
            raise UnsupportedMediaTypeError("send JSON in UTF-8")


def _identify(headers: RawHeaders) -> str:
    given = find_header(headers, REQUEST_ID)
    return given if given and _REQUEST_ID.fullmatch(given) else os.urandom(8).hex()
