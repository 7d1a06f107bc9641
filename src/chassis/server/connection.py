"""
HTTP/1.1 by uvicorn and httptools, with limits on what a caller may cost the server.

Every HTTP server of the project uses this class; any ASGI application can run under it. It differs from uvicorn's
class in these points, which a caller could otherwise use to harm others:

    pipelined requests       wait unparsed behind a request that waits; reading pauses beyond 64 KiB of them
    a head beyond 64 KiB     gets 431 and ends the connection; so do more than 128 headers, long trailers, and chunk
                             sizes and extensions that are longer than the body that they frame
    a late head or body      gets 408 and ends the connection
    an unread answer         ends the connection after a time
    too many connections     get 503
    no next request          within the keep-alive time ends the connection, counted from when it was opened
    requests, then garbage   are answered, in their order, before the 400
    a caller that leaves     is noticed while its pipelined requests wait, and its request is cancelled
    an offer to upgrade      is ignored, as RFC 9110, section 7.8, allows; uvicorn parses the body as the next request
    trailers                 are dropped, as section 6.5.1 demands; uvicorn turns them into headers
    CONNECT                  gets 405 and ends the connection, because the bytes that follow are not HTTP
    no Host, or two          get 400, as RFC 9112, section 3.2, demands; so does a version other than 1.0 and 1.1
    Expect in HTTP/1.0       is ignored, as RFC 9110, section 10.1.1, demands
    a transfer coding        other than chunked gets 400; the parser would frame the body and not decode it
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HEADER_VALUE_RE, STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from chassis.call import Reply, headers_of, problem_reply
from chassis.server.joined_writes import JoinedWrites
from chassis.server.limits import Refusals, ServerLimits
from chassis.wire.problems import (
    HeadTooLargeError,
    MethodNotAllowedError,
    NotHttpError,
    OverloadedError,
    RequestTimeoutError,
    ServingError,
)

# The parser cannot stop between two requests, so it is fed in pieces: this many bytes and the rest of a head. A piece
# holds at most 57 of the shortest requests.
_PIECE_BYTES = 1024


class Flow(FlowControl):
    """
    Flow control that also pauses while enough bytes wait.

    Attributes:
        is_full: Enough bytes wait. uvicorn resumes reading with each answer and each time the application reads.
    """

    is_full = False

    def resume_reading(self) -> None:
        """Read on, unless enough bytes wait."""
        if not self.is_full:
            super().resume_reading()


class ServerConnection(HttpToolsProtocol):
    """
    One connection.

    Attributes:
        answering: The request that is being answered, or the last one that was; others wait in uvicorn's pipeline.
        out: The transport.

    Cost: one timer for each connection, and another one for a request that is incomplete after a read.
    """

    def __init__(
        self, *arguments: Any, limits: ServerLimits | None = None, refusals: Refusals | None = None, **keywords: Any
    ) -> None:
        super().__init__(*arguments, **keywords)
        self._limits, self._refusals = limits or ServerLimits(), refusals or Refusals()
        self.answering: Any = None
        # The request whose body arrives.
        self._arriving: RequestResponseCycle | None = None
        # Bytes that wait unparsed because a request waits before them.
        self._rest = b""
        # Sends the refusal of a faulty request once the requests before it are answered.
        self._refusal: Callable[[], None] | None = None
        self._has_host = False
        # Bytes of the arriving head, or of chunk sizes, extensions and trailers.
        self._frame_bytes = 0
        # Seconds that the arriving head or body may take, 0 between requests; and its timer once it is started.
        self._part_s = 0.0
        self._part_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._idle_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the idle time of a new connection, or refuse the connection if too many are open."""
        self.out = JoinedWrites(cast("asyncio.Transport", transport))
        super().connection_made(cast("asyncio.Transport", self.out))
        self.flow: Flow = Flow(self.transport)
        self._idle_since = self.loop.time()
        self._check_later(self.timeout_keep_alive)
        if len(self.connections) > self._limits.connections:
            self._refusals.note(now=self._idle_since, limit=self._limits.connections)
            self._end_with(OverloadedError("too many connections are open", retry_after_s=1.0))

    def connection_lost(self, exc: Exception | None) -> None:
        """Notify the requests that are being answered or read, and drop those that wait."""
        self._unset_keepalive_if_required()
        self._end_part()
        if self._send_timer is not None:
            self._send_timer.cancel()
        super().connection_lost(exc)
        if self.is_answering():
            self.answering.disconnected = True
            self.answering.message_event.set()
        self._rest = b""
        self.pipeline.clear()

    def data_received(self, data: bytes) -> None:
        """Parse *data*, or keep it while requests wait to be answered."""
        if not self._rest and not self.pipeline and self._refusal is None:
            self._take(data)
        elif self._refusal is None:
            self._keep(self._rest + data)

    def _take(self, data: bytes) -> None:
        """Parse *data* until a request has to wait, and keep the rest."""
        start = 0
        while start < len(data) and not self.pipeline and self._refusal is None:
            found = data.find(b"\r\n\r\n", start + _PIECE_BYTES)
            end = len(data) if found < 0 else found + 4
            if not self._parse(data if end - start == len(data) else data[start:end]):
                return
            start = end
        self.on_read_end()
        if start < len(data):
            self._keep(data[start:])
        elif self._part_s:
            self._start_part()

    def _parse(self, data: bytes) -> bool:
        """Parse *data*. Return False if it is faulty, which ends the connection once earlier requests are answered."""
        self._frame_bytes += len(data)
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
            # An error raised by one of the callbacks is the context of the parser's own error.
            self._refuse(error.__context__)
            return False
        if self._frame_bytes > self._limits.head_bytes:
            self._refuse(HeadTooLargeError())
            return False
        return True

    def on_read_end(self) -> None:
        """Handle an incomplete request at the end of a read; for subclasses."""

    def _keep(self, rest: bytes) -> None:
        """
        Keep *rest* unparsed, and pause reading if it exceeds the limit.

        Below the limit the connection is read on, because a caller that disconnects is noticed only by reading.
        """
        self._rest = rest
        self.flow.is_full = len(rest) > self._limits.waiting_bytes
        if self.flow.is_full:
            self.flow.pause_reading()

    def _go_on(self) -> None:
        """Parse the bytes that were kept."""
        if self.transport.is_closing() or self.pipeline:
            return
        self.flow.is_full = False
        self.flow.resume_reading()
        rest, self._rest = self._rest, b""
        self._take(rest)

    # The parser's callbacks.

    def on_message_begin(self) -> None:
        """Begin a request."""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._arriving = None
        self._has_host = False
        self._begin_part(self._limits.head_s)

    def on_header(self, name: bytes, value: bytes) -> None:
        """
        Take in a header, or a trailer.

        Raises:
            HeadTooLargeError: there are too many.
            ValueError: there is a second Host, or the transfer coding is not chunked.
        """
        name = name.lower()
        if len(self.headers) >= self._limits.headers:
            raise HeadTooLargeError
        if name == b"host":
            if self._has_host:
                raise ValueError
            self._has_host = True
        elif name == b"transfer-encoding" and value.lower() != b"chunked":
            raise ValueError
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """
        Check the head, and pass the request on.

        Raises:
            HeadTooLargeError: the head was complete in one read, and exceeds the limit.
            MethodNotAllowedError: CONNECT asks for a tunnel.
            ValueError: the version is not HTTP/1.0 or 1.1, or HTTP/1.1 without Host.
        """
        if self._frame_bytes > self._limits.head_bytes and self._measure_head() > self._limits.head_bytes:
            raise HeadTooLargeError
        self._frame_bytes = 0
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise MethodNotAllowedError.of("GET, HEAD, POST")
            return
        version = self.parser.get_http_version()
        if version not in {"1.1", "1.0"} or (version == "1.1" and not self._has_host):
            raise ValueError
        if version == "1.0":
            self.expect_100_continue = False
        self._begin_part(self._limits.body_s)
        # The parser reports trailers as headers. They go into a list that is never read.
        head, self.headers = self.headers, []
        self.on_head(head)

    def on_head(self, head: list[tuple[bytes, bytes]]) -> None:
        """Put a request whose *head* is complete on uvicorn's path: it is answered after the requests before it."""
        url, expects_100, was_paused = self.url, self.expect_100_continue, self.flow.read_paused
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects_100
        self.headers.extend(head)
        super().on_headers_complete()
        self.headers = []
        self._arriving = self.cycle
        if not was_paused:
            # uvicorn pauses reading when a request has to wait, and then does not notice a caller that disconnects.
            self.flow.resume_reading()

    def on_body(self, body: bytes) -> None:
        """Take in a part of a body. Chunk sizes and extensions may be as long as the body, beyond the limit of a head."""
        self._frame_bytes = max(0, self._frame_bytes - 2 * len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that a request is complete."""
        if not self.parser.should_upgrade():
            self.end_arrival()
            super().on_message_complete()

    def end_arrival(self) -> None:
        """Stop counting the bytes and the time of the request that was arriving."""
        self._frame_bytes = 0
        self._arriving = None
        self._end_part()

    def on_response_complete(self) -> None:
        """Start the next request, refuse a faulty one, or start the idle time."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._refusal is not None:
            self._refusal()
            return
        self._idle_since = self.loop.time()
        if self._rest:
            self.loop.call_soon(self._go_on)
        else:
            self._start_part()

    def pause_writing(self) -> None:
        """Drop the connection if the caller does not read in time."""
        super().pause_writing()
        self._send_timer = self.loop.call_later(self._limits.send_s, self.out.abort)

    def resume_writing(self) -> None:
        """Keep the connection, as the caller reads."""
        super().resume_writing()
        if self._send_timer is not None:
            self._send_timer.cancel()

    def is_answering(self) -> bool:
        """Tell whether a request is being answered."""
        return self.answering is not None and not self.answering.response_complete

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self.answering = cycle
        super()._start_asgi_task(cycle, app)

    def _decline(self) -> None:
        """
        Parse the request again without its offer to upgrade.

        The parser ends a request that offers an upgrade with its head, and has no option that changes that. A new parser
        therefore gets the head without the offer, and continues with the body.
        """
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.parser.feed_data(b"\r\n".join([*lines, b"", b""]))

    def _measure_head(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + len(b": \r\n") for name, value in self.headers)

    # Refusals.

    def _refuse(self, error: BaseException | None) -> None:
        """End the connection with the problem *error*, or with 400, once the requests before it are answered."""
        self._end_part()
        self._rest = b""
        arriving, self._arriving = self._arriving, None
        if self.pipeline and self.pipeline[0][0] is arriving:
            self.pipeline.popleft()
        if self.is_answering() and self.answering is not arriving:
            self._refusal = partial(self._end_with, error)
        elif arriving is not None and arriving.response_started:
            self.out.close()
        else:
            self._end_with(error)

    def _end_with(self, error: BaseException | None) -> None:
        """Answer with the problem *error*, or with 400 if it is another error, and end the connection."""
        if not isinstance(error, ServingError):
            error = NotHttpError()
            self.logger.warning(error.title)
        self.out.write_now(reply_bytes(problem_reply(error), keep_alive=False))
        self.out.close()

    # Time.

    def _begin_part(self, within_s: float) -> None:
        """Note that a head or a body, which must be complete *within_s* seconds, begins to arrive."""
        if self._part_timer is not None:
            self._end_part()
        self._part_s = within_s

    def _start_part(self) -> None:
        """Start the timer of an incomplete head or body, unless it waits for the requests before it."""
        if self._part_s and self._part_timer is None and not self.pipeline and not self._rest:
            self._part_timer = self.loop.call_later(self._part_s, self._refuse, RequestTimeoutError())

    def _end_part(self) -> None:
        self._part_s = 0.0
        if self._part_timer is not None:
            self._part_timer.cancel()
            self._part_timer = None

    def _check_later(self, after_s: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(after_s, self._close_if_idle)

    def _close_if_idle(self) -> None:
        if self.transport.is_closing():
            # The connection was closed, but the caller does not read its last bytes.
            self.out.abort()
            return
        left_s = self.timeout_keep_alive - (0.0 if self.is_answering() else self.loop.time() - self._idle_since)
        if left_s <= 0:
            self.transport.close()
        self._check_later(left_s if left_s > 0 else self._limits.send_s)


def reply_bytes(reply: Reply, *, keep_alive: bool) -> bytes:
    """
    Return the bytes of *reply* as HTTP/1.1.

    Raises:
        ValueError: a header's value contains a control character.
    """
    parts = [STATUS_LINE[reply.status]]
    for name, value in headers_of(reply):
        if HEADER_VALUE_RE.search(value):
            raise ValueError(f"the header {name!r} has a control character")
        parts += (name, b": ", value, b"\r\n")
    parts += (b"\r\n" if keep_alive else b"connection: close\r\n\r\n", reply.body)
    return b"".join(parts)
