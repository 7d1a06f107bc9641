"""
HTTP/1.1 by uvicorn, with a direct path for the requests that functions are made for.

Nearly all of them are plain: `POST /` that stays connected, whole in what one read of the connection brought, with no
other one in flight on it. Such a request needs no scope, no queue for the parts of its body and no answer in parts: it
goes straight to the service, and the answer is one write. Whatever is not plain in any respect goes uvicorn's way.
Parsing is httptools' either way. docs/adr/0001-own-entry-point.md has what it saves.

Either way differs from uvicorn in what a caller could do harm with, or would be harmed by:

    an offer to upgrade       is ignored, as RFC 9110, section 7.8 allows; uvicorn parses the body as the next request
    trailers                  are dropped, as section 6.5.1 wants it; uvicorn makes headers of them
    a head beyond 64 KiB      gets 431 and ends the connection; so do trailers. uvicorn takes any
    CONNECT                   gets 405 and ends the connection: what follows it is no HTTP
    no (next) request's head  by the end of the keep-alive time, however much of it came, ends the connection;
                              uvicorn begins to count with the first answer, and stops with the first byte after it
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HEADER_VALUE_RE, STATUS_LINE, HttpToolsProtocol

from chassis.call import Reply, problem_reply
from chassis.server.asgi import Shell, headers_of
from chassis.server.outbox import OneWrite
from chassis.server.presence import ClientGoneError, Receive
from chassis.server.service import Scope
from chassis.wire.headers import RawHeaders
from chassis.wire.problems import HeadTooLargeError, MethodNotAllowedError, ServingError

Answer = Callable[[Scope, Receive, bytes], Awaitable[Reply]]

# The head of a request, its request line included; the same for trailers.
HEAD_BYTES = 64 * 1024
# As uvicorn says it.
_NO_HTTP = "Invalid HTTP request received."

log = logging.getLogger("chassis")


class Protocol(HttpToolsProtocol):
    """
    One connection.

    Also cheaper than uvicorn's: one timer a connection for its idle time, not a new one after each answer.
    """

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        shell = cast("Shell", self.app)
        self._service, self.outbox = shell.service, shell.outbox
        # The head, and the body as far as it is there, of a request that is plain so far.
        self._head: list[tuple[bytes, bytes]] = []
        self._plain: bytes | None = None
        # Bytes of the reads since a head was whole or a part of a body came: those of a head, or of trailers.
        self._came = 0
        self._idle_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection in, and begin to count its idle time."""
        self._out = OneWrite(cast("asyncio.Transport", transport))
        super().connection_made(cast("asyncio.Transport", self._out))
        self._idle_since = self.loop.time()
        self._look_in(self.timeout_keep_alive)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request in flight."""
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in what the connection brought; the rest of a request that is not whole comes uvicorn's way."""
        self._came += len(data)
        rest: bytes | memoryview = data
        try:
            while rest:
                try:
                    self.parser.feed_data(rest)
                    break
                except httptools.HttpParserUpgrade as offer:
                    rest = memoryview(rest)[offer.args[0] :]
                    self._decline()
        except httptools.HttpParserError as error:
            # What the parser's callbacks raise is the context of the parser's own error.
            self._refuse(error.__context__)
            return
        if self._came > HEAD_BYTES:
            self._refuse(HeadTooLargeError())
        elif self._plain is not None:
            self._hand_over_plain()

    def on_message_begin(self) -> None:
        """Begin a request."""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        """
        Choose the request's way.

        Raises:
            HeadTooLargeError: the head came in one read, and is too long all the same.
            MethodNotAllowedError: the rest of the connection would be a tunnel.
        """
        if self._came > HEAD_BYTES and self._measure_head() > HEAD_BYTES:
            raise HeadTooLargeError
        self._came = 0
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise MethodNotAllowedError(headers=[("allow", "POST")])
            return
        # Trailers come as headers do: into a list that nobody reads.
        head, self.headers = self.headers, []
        if (
            self.url == b"/"
            and (self.cycle is None or self.cycle.response_complete)
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.expect_100_continue
            # A server that drains says so in each answer.
            and not self.server_state.default_headers
        ):
            self._head, self._plain = head, b""
        else:
            self._hand_over(head, expects_100=self.expect_100_continue)

    def on_body(self, body: bytes) -> None:
        """Take a part of the body in; many of them are put together uvicorn's way."""
        self._came = 0
        if self._plain == b"":
            self._plain = body
            return
        if self._plain is not None:
            self._hand_over_plain()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Have a plain request answered."""
        if self._plain is None:
            self._came = 0
            if not self.parser.should_upgrade():
                super().on_message_complete()
            return
        self.outbox.expect()
        exchange = Exchange(self, self._head, self._plain)
        self._plain = None
        self.cycle = cast("Any", exchange)
        task = self.loop.create_task(exchange.run(self._service.answer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def finish(self, answer: bytes, *, begun: int | None, keep_alive: bool) -> None:
        """Send the *answer* of a plain request that was *begun* in that turn, and is over with it."""
        self.outbox.send(answer, self._out, begun=begun)
        if not keep_alive:
            self.transport.close()
        self.on_response_complete()

    def on_response_complete(self) -> None:
        """Go on with the next request, or be idle."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since = self.loop.time()

    def _hand_over_plain(self) -> None:
        """Go uvicorn's way with a request that was plain so far."""
        body, self._plain = self._plain or b"", None
        self._hand_over(self._head, expects_100=False)
        super().on_body(body)

    def _hand_over(self, head: list[tuple[bytes, bytes]], *, expects_100: bool) -> None:
        """Go uvicorn's way with the request whose *head* is there: its scope takes the place of what stood for it."""
        url = self.url
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects_100
        self.headers.extend(head)
        super().on_headers_complete()
        self.headers = []

    def _decline(self) -> None:
        """
        Begin the request anew, without its offer to upgrade.

        The parser ends a request that has one with its head, whatever follows; no leniency of it changes that. So
        another one gets the head without the offer, and goes on with the body.
        """
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.parser.feed_data(b"\r\n".join([*lines, b"", b""]))

    def _measure_head(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + len(b": \r\n") for name, value in self.headers)

    def _refuse(self, error: BaseException | None) -> None:
        """End the connection with the problem that *error* is; with uvicorn's 400 where it is none."""
        if isinstance(error, ServingError):
            self._out.write_now(_written(problem_reply(error), keep_alive=False))
            self._out.close()
        else:
            self.logger.warning(_NO_HTTP)
            self.send_400_response(_NO_HTTP)

    def _look_in(self, after_s: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(after_s, self._close_if_idle)

    def _close_if_idle(self) -> None:
        in_flight = self.cycle is not None and not self.cycle.response_complete
        left_s = self.timeout_keep_alive - (0.0 if in_flight else self.loop.time() - self._idle_since)
        if left_s > 0:
            self._look_in(left_s)
        else:
            self.timeout_keep_alive_handler()


class Exchange:
    """
    A plain request and its answer.

    Args:
        protocol: The connection.
        headers: Lower-case names.
        body: The whole body.

    Attributes:
        disconnected: The caller has gone.
        keep_alive: The connection outlives the answer.
        message_event: Set once the caller has gone.
        response_complete: The next request may begin.
    """

    # The attributes are those that HttpToolsProtocol reads and sets of the request in flight.
    __slots__ = ("_body", "_headers", "_protocol", "disconnected", "keep_alive", "message_event", "response_complete")

    def __init__(self, protocol: Protocol, headers: RawHeaders, body: bytes) -> None:
        self._protocol = protocol
        self._headers = headers
        self._body = body
        self.disconnected = False
        self.keep_alive = True
        self.message_event = asyncio.Event()
        self.response_complete = False

    async def run(self, answer: Answer) -> None:
        """Have the request answered, and send the answer unless the caller has gone."""
        begun = self._protocol.outbox.begin()
        try:
            reply = await answer({"method": "POST", "path": "/", "headers": self._headers}, self.receive, self._body)
            written = _written(reply, keep_alive=self.keep_alive)
        except ClientGoneError:
            return
        except BaseException:
            log.exception("exchange_failed")
            self.keep_alive = False
            written = _written(problem_reply(ServingError()), keep_alive=False)
        if self._protocol.flow.write_paused and not self.disconnected:
            await self._protocol.flow.drain()
        if not self.disconnected:
            self.response_complete = True
            self._protocol.finish(written, begun=begun, keep_alive=self.keep_alive)

    async def receive(self) -> dict[str, Any]:
        """Return the request's end once the caller has gone."""
        await self.message_event.wait()
        return {"type": "http.disconnect"}


def _written(reply: Reply, *, keep_alive: bool) -> bytes:
    """
    Return *reply* as it goes over the connection.

    Raises:
        ValueError: a header's value would end the header.
    """
    parts = [STATUS_LINE[reply.status]]
    for name, value in headers_of(reply):
        if HEADER_VALUE_RE.search(value):
            raise ValueError(f"the header {name!r} has a control character")
        parts += (name, b": ", value, b"\r\n")
    parts += (b"\r\n" if keep_alive else b"connection: close\r\n\r\n", reply.body)
    return b"".join(parts)
