"""What a handler is given and what it returns, independent of the server that carries them."""

import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from recsys.contracts.problems import DeadlineExceededError
from recsys.serving.receipt import Receipt
from recsys.telemetry.tracing import PassOn, Span

RawHeaders = Sequence[tuple[bytes, bytes]]

JSON = b"application/json"


class Deadline(msgspec.Struct, frozen=True):
    """
    The moment after which nobody waits for the answer any more.

    Attributes:
        at: Seconds on the monotonic clock.
    """

    at: float

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        """Return the deadline *seconds* from now."""
        return cls(time.monotonic() + seconds)

    def left_s(self) -> float:
        """Return the seconds left; negative once passed."""
        return self.at - time.monotonic()

    def check(self) -> None:
        """
        Do nothing while there is time left.

        Raises:
            DeadlineExceededError: there is none.
        """
        if self.left_s() <= 0:
            raise DeadlineExceededError


class Call(msgspec.Struct, frozen=True):
    """
    One request to a handler.

    Attributes:
        body: The whole body.
        headers: Lower-case names, as the server read them.
        request_id: The caller's X-Request-Id, or one made here.
        receipt: Where handlers enter what they spend their time on.
        deadline: Until when an answer is of use.
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
    """What a handler answers: a status, a body, its type, and further headers."""

    body: bytes
    status: int = 200
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def with_headers(self, *headers: tuple[bytes, bytes]) -> "Reply":
        """Return this reply with *headers* added."""
        return Reply(self.body, self.status, self.content_type, (*self.headers, *headers))


Handler = Callable[[Call], Awaitable[Reply]]


def find_header(headers: RawHeaders, name: bytes) -> str | None:
    """Return the first value of the header *name* (lower case), or None."""
    for key, value in headers:
        if key == name:
            return value.decode("latin-1")
    return None
