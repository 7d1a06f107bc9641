"""
A direct path for the requests that functions are made for.

Nearly all of them are plain: `POST /` that stays connected, whole in what one read of the connection brought, with no
other one in flight on it. Such a request needs no scope, no queue for the parts of its body and no answer in parts: it
goes straight to the service, and the answer is one write. Whatever is not plain in any respect goes uvicorn's way.
Parsing and limits are the same either way. docs/adr/0001-own-entry-point.md has what it saves.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

from chassis.call import Reply, problem_reply
from chassis.server.asgi import Shell
from chassis.server.connection import Connection, reply_bytes
from chassis.server.presence import ClientGoneError, Receive
from chassis.server.service import Scope
from chassis.wire.headers import RawHeaders
from chassis.wire.problems import ServingError

Answer = Callable[[Scope, Receive, bytes], Awaitable[Reply]]

log = logging.getLogger("chassis")


class Protocol(Connection):
    """One connection to a function."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        shell = cast("Shell", self.app)
        self._service, self.outbox = shell.service, shell.outbox
        # The head, and the body as far as it is there, of a request that is plain so far.
        self._head: list[tuple[bytes, bytes]] = []
        self._plain: bytes | None = None

    def on_head(self, head: list[tuple[bytes, bytes]]) -> None:
        """Choose the request's way."""
        if (
            self.url == b"/"
            and not self.is_answering()
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.expect_100_continue
            # A server that drains says so in each answer.
            and not self.server_state.default_headers
        ):
            self._head, self._plain = head, b""
        else:
            super().on_head(head)

    def on_body(self, body: bytes) -> None:
        """Take a part of the body in; many of them are put together uvicorn's way."""
        if self._plain == b"":
            self._plain = body
            return
        self.on_read_end()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Have a plain request answered."""
        if self._plain is None:
            super().on_message_complete()
            return
        self.end_arrival()
        self.outbox.expect()
        exchange = Exchange(self, self._head, self._plain)
        self._plain = None
        self.cycle = self.answering = cast("Any", exchange)
        task = self.loop.create_task(exchange.run(self._service.answer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def on_read_end(self) -> None:
        """Go uvicorn's way with a request that was plain so far, and is not whole."""
        if self._plain is not None:
            body, self._plain = self._plain, None
            super().on_head(self._head)
            super().on_body(body)

    def finish(self, answer: bytes, *, begun: int | None, keep_alive: bool) -> None:
        """Send the *answer* of a plain request that was *begun* in that turn, and is over with it."""
        self.outbox.send(answer, self.out, begun=begun)
        if not keep_alive:
            self.transport.close()
        self.on_response_complete()


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
            written = reply_bytes(reply, keep_alive=self.keep_alive)
        except ClientGoneError:
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

    async def receive(self) -> dict[str, Any]:
        """Return the request's end once the caller has gone."""
        await self.message_event.wait()
        return {"type": "http.disconnect"}
