"""
A connection to a function, with a direct path for plain requests.

A request is plain if it is a `POST /` that keeps its connection open, is complete in one read, and comes while no other
request of that connection is in flight. Nearly all requests to functions are plain. They need no ASGI scope, no queue
for the parts of a body and no answer in parts: they go directly to the service, and the answer is one write. All other
requests take uvicorn's path. Parsing and limits are the same on both paths. docs/adr/0001-own-entry-point.md has the
measurements.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

from chassis.call import Reply, problem_reply
from chassis.server.asgi import Shell
from chassis.server.caller_watch import ClientDisconnectedError, DisconnectSignal, Receive
from chassis.server.connection import ServerConnection, reply_bytes
from chassis.server.service import Scope
from chassis.wire.headers import RawHeaders
from chassis.wire.problems import ServingError

AnswerRequest = Callable[[Scope, Receive, bytes], Awaitable[Reply]]

log = logging.getLogger("chassis")


class FunctionConnection(ServerConnection):
    """One connection to a function."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        shell = cast("Shell", self.app)
        self._service, self.turn_writes = shell.service, shell.turn_writes
        # The head of the arriving request while it is plain, and the body received; None if it is not plain.
        self._head: list[tuple[bytes, bytes]] = []
        self._plain: bytes | None = None

    def on_head(self, head: list[tuple[bytes, bytes]]) -> None:
        """Choose the path of the request."""
        if (
            self.url == b"/"
            and not self.is_answering()
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.expect_100_continue
            # While a server drains, uvicorn's path adds a header to each answer.
            and not self.server_state.default_headers
        ):
            self._head, self._plain = head, b""
        else:
            super().on_head(head)

    def on_body(self, body: bytes) -> None:
        """Take in a part of the body. A body of several parts takes uvicorn's path, which joins them."""
        if self._plain == b"":
            self._plain = body
            return
        self.on_read_end()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Start answering a plain request."""
        if self._plain is None:
            super().on_message_complete()
            return
        self.end_arrival()
        self.turn_writes.expect()
        exchange = PlainExchange(self, self._head, self._plain)
        self._plain = None
        self.cycle = self.answering = cast("Any", exchange)
        task = self.loop.create_task(exchange.run(self._service.answer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def on_read_end(self) -> None:
        """Put a plain request that is incomplete after a read on uvicorn's path."""
        if self._plain is not None:
            body, self._plain = self._plain, None
            super().on_head(self._head)
            super().on_body(body)

    def finish(self, answer: bytes, *, begun: int | None, keep_alive: bool) -> None:
        """Send the *answer* of a plain request that was *begun* in that turn, and end the exchange."""
        self.turn_writes.send(answer, self.out, begun=begun)
        if not keep_alive:
            self.transport.close()
        self.on_response_complete()


class PlainExchange:
    """
    A plain request and its answer.

    Args:
        protocol: The connection.
        headers: Lower-case names.
        body: The whole body.

    Attributes:
        disconnected: The caller has disconnected.
        keep_alive: The connection stays open after the answer.
        message_event: The signal that the caller disconnects.
        response_complete: The answer has been sent, and the next request may start.
    """

    # HttpToolsProtocol reads and sets these attributes on the request in flight.
    __slots__ = ("_body", "_headers", "_protocol", "disconnected", "keep_alive", "message_event", "response_complete")

    def __init__(self, protocol: FunctionConnection, headers: RawHeaders, body: bytes) -> None:
        self._protocol = protocol
        self._headers = headers
        self._body = body
        self.disconnected = False
        self.keep_alive = True
        self.message_event = DisconnectSignal()
        self.response_complete = False

    async def run(self, answer: AnswerRequest) -> None:
        """Answer the request, unless the caller disconnects."""
        begun = self._protocol.turn_writes.begin()
        try:
            scope = {"method": "POST", "path": "/", "headers": self._headers}
            reply = await answer(scope, self.message_event, self._body)
            written = reply_bytes(reply, keep_alive=self.keep_alive)
        except ClientDisconnectedError:
            return
        except BaseException:
            log.exception("exchange_failed")
            self.keep_alive = False
            written = reply_bytes(problem_reply(ServingError()), keep_alive=False)
        if self._protocol.flow.write_paused and not self.disconnected:
            await self._protocol.flow.drain()
        if not self.disconnected:
            self.response_complete = True
            self._protocol.finish(written, begun=begun, keep_alive=self.keep_alive)
