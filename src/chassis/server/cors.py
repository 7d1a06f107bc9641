"""
Let pages of other origins call a function (CORS).

A browser sends a preflight before it sends JSON to another origin, and hides the answer from a page whose origin is not
allowed. Source: the Fetch standard, section 3.3 "CORS protocol".
"""

import re
from collections.abc import Sequence

from chassis.call import Reply
from chassis.environment import Reader
from chassis.wire.headers import RawHeaders, find_header

ANY = "*"

_REQUEST_HEADERS = b"authorization, content-type, prefer, traceparent, tracestate, x-request-id, x-request-timeout-ms"
_ANSWER_HEADERS = b"preference-applied, retry-after, server-timing, x-request-id"
_PREFLIGHT_VALID_S = b"600"
_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class Cors:
    """
    Allows the pages of some origins.

    Args:
        origins: Origins such as `https://shop.example`, or `*` for all.
        exposed: Headers of the function's own answers that a page may read, in small letters.

    Attributes:
        preflight: The answer to a preflight, without the allowed origin.
    """

    def __init__(self, origins: Sequence[str], *, exposed: Sequence[bytes] = ()) -> None:
        self._origins = frozenset(origins)
        self._exposed = b", ".join([_ANSWER_HEADERS, *exposed])
        self.preflight = Reply(
            b"",
            status=204,
            headers=(
                (b"access-control-allow-methods", b"POST"),
                (b"access-control-allow-headers", _REQUEST_HEADERS),
                (b"access-control-max-age", _PREFLIGHT_VALID_S),
            ),
        )

    @classmethod
    def read(cls, env: Reader, *, exposed: Sequence[bytes] = ()) -> "Cors | None":
        """Read CORS_ORIGINS, origins with commas between them, and add its faults to *env*; return None without one."""
        text = env.optional("CORS_ORIGINS")
        if text is None:
            return None
        origins = [origin.strip() for origin in text.split(",")]
        for origin in origins:
            env.require(
                origin == ANY or _is_origin(origin),
                f"CORS_ORIGINS must list origins such as https://shop.example, or be *, not {origin!r}",
            )
        return cls(origins, exposed=exposed)

    def allow(self, reply: Reply, headers: RawHeaders) -> Reply:
        """Return *reply* with the headers that let the page of the request read it, if its origin is allowed."""
        origin = find_header(headers, b"origin")
        if origin is None or not self._origins & {origin, ANY}:
            return reply.with_headers((b"vary", b"origin"))
        return reply.with_headers(
            (b"vary", b"origin"),
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", self._exposed),
        )


def is_preflight(method: str, headers: RawHeaders) -> bool:
    """Tell whether a request asks for permission to send another one."""
    return method == "OPTIONS" and find_header(headers, b"access-control-request-method") is not None


def _is_origin(text: str) -> bool:
    """Tell whether a browser may send *text*: it writes small letters, ASCII, and no default port."""
    return _ORIGIN.fullmatch(text) is not None and not text.endswith(_DEFAULT_PORTS[text.partition(":")[0]])
