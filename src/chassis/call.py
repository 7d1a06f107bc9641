"""The request that a handler receives and the reply that it returns, independent of the server."""

import time
from collections.abc import Awaitable, Callable

import msgspec

from chassis.receipt import Receipt
from chassis.telemetry.tracing import PassOn, Span
from chassis.wire.headers import RawHeaders, find_header
from chassis.wire.problems import DeadlineExceededError, ServingError

JSON = b"application/json"
PROBLEM = b"application/problem+json"


class Deadline(msgspec.Struct, frozen=True):
    """
    The moment at which the caller stops waiting for the answer.

    Attributes:
        at: Seconds on the monotonic clock.
    """

    at: float

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        """Return the deadline *seconds* from now."""
        return cls(time.monotonic() + seconds)

    def left_s(self) -> float:
        """Return the seconds left; negative after the deadline."""
        return self.at - time.monotonic()

    def check(self) -> None:
        """
        Raise if the deadline has passed.

        Raises:
            DeadlineExceededError: no time is left.
        """
        if self.left_s() <= 0:
            raise DeadlineExceededError


class Call(msgspec.Struct, frozen=True):
    """
    One request to a handler.

    Attributes:
        body: The whole body.
        headers: Lower-case names, as the server read them.
        request_id: The caller's X-Request-Id, or a generated id.
        receipt: Collects how long each phase of the work takes.
        deadline: The moment at which the caller stops waiting.
        span: The request's place in its trace.
    """

    body: bytes
    headers: RawHeaders
    request_id: str
    receipt: Receipt
    deadline: Deadline
    span: Span = PassOn(())

    def header(self, name: bytes) -> str | None:
        """Return the first value of the header *name* (lower case), or None."""
        return find_header(self.headers, name)


class Reply(msgspec.Struct, frozen=True):
    """A handler's answer: a status, a body, its content type, and further headers."""

    body: bytes
    status: int = 200
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def with_headers(self, *headers: tuple[bytes, bytes]) -> "Reply":
        """Return this reply with *headers* added."""
        return Reply(self.body, self.status, self.content_type, (*self.headers, *headers))


Handler = Callable[[Call], Awaitable[Reply]]


def headers_of(reply: Reply) -> list[tuple[bytes, bytes]]:
    """Return all headers of *reply*, including those of its body."""
    return [
        (b"content-type", reply.content_type),
        (b"content-length", b"%d" % len(reply.body)),
        *reply.headers,
    ]


def problem_reply(error: ServingError) -> Reply:
    """Return *error* as an RFC 9457 problem document, with the headers that belong to the error."""
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in error.headers]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % max(1, round(error.retry_after_s))))
    body = msgspec.json.encode(error.problem())
    return Reply(body, status=error.status, content_type=PROBLEM, headers=tuple(headers))
