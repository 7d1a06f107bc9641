"""
Bearer tokens of requests.

Source: RFC 6750, sections 2.1 and 3.
"""

from chassis.wire.headers import RawHeaders, find_header
from chassis.wire.problems import UnauthorizedError

_CHALLENGE = 'Bearer realm="recsys"'


def bearer_token(headers: RawHeaders) -> str:
    """
    Return the bearer token of a request.

    Raises:
        UnauthorizedError: The request has no bearer token.
    """
    scheme, _, token = (find_header(headers, b"authorization") or "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise UnauthorizedError("send Authorization: Bearer TOKEN", headers=[("www-authenticate", _CHALLENGE)])
    return token


def refuse(detail: str) -> UnauthorizedError:
    """Return the error for a token that is not accepted; *detail* never holds any part of the token."""
    return UnauthorizedError(detail, headers=[("www-authenticate", f'{_CHALLENGE}, error="invalid_token"')])
