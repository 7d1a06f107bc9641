"""The headers that every function reads and sends, by their lower-case names."""

from collections.abc import Sequence

RawHeaders = Sequence[tuple[bytes, bytes]]

REQUEST_ID = b"x-request-id"
# Milliseconds that the caller waits for the answer.
REQUEST_TIMEOUT_MS = b"x-request-timeout-ms"


def find_header(headers: RawHeaders, name: bytes) -> str | None:
    """Return the first value of the header *name* (lower case), or None."""
    for key, value in headers:
        if key == name:
            return value.decode("latin-1")
    return None
