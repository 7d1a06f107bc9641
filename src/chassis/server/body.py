"""A request's body, read from its ASGI channel up to a limit."""

from typing import cast

from chassis.server.caller_watch import ClientDisconnectedError, Receive
from chassis.wire.headers import RawHeaders, find_header
from chassis.wire.problems import BodyTooLargeError, UnsupportedMediaTypeError

# An integer of more digits exceeds every limit, and Python refuses to read one of more than 4,300.
_MOST_DIGITS = 18


async def read_body(headers: RawHeaders, receive: Receive, *, limit: int) -> bytes:
    """
    Return the whole body, and never hold much more than *limit* bytes of it.

    Raises:
        BodyTooLargeError: the body is announced as longer, or is longer.
        ClientDisconnectedError: the connection closed first.
    """
    announced = (find_header(headers, b"content-length") or "").lstrip("0")
    if announced.isdecimal() and (len(announced) > _MOST_DIGITS or int(announced) > limit):
        raise body_too_large(limit)
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnectedError
        body += cast("bytes", message.get("body", b""))
        if len(body) > limit:
            raise body_too_large(limit)
        if not message.get("more_body", False):
            return bytes(body)


def refuse_compressed(headers: RawHeaders) -> None:
    """
    Refuse a body with a content coding, because no server of the project decodes bodies.

    Raises:
        UnsupportedMediaTypeError: the head names a coding; the answer says which it may name (RFC 9110, section 12.5.3).
    """
    if (find_header(headers, b"content-encoding") or "identity").lower() != "identity":
        raise UnsupportedMediaTypeError(
            "send the body without Content-Encoding", headers=[("accept-encoding", "identity")]
        )


def body_too_large(limit: int) -> BodyTooLargeError:
    """Return the error for a body of more than *limit* bytes."""
    return BodyTooLargeError(f"at most {limit} bytes are accepted")
