"""
The guard at a function's door.

Source of the challenge: RFC 6750, section 3.
"""

from typing import Protocol

from recsys.contracts.problems import UnauthorizedError
from recsys.serving.auth.settings import AuthSettings
from recsys.serving.call import RawHeaders, find_header
from recsys.settings import SettingsError

_CHALLENGE = 'Bearer realm="recsys"'


class Guard(Protocol):
    """Lets requests in or refuses them."""

    async def admit(self, headers: RawHeaders) -> None:
        """
        Return when the request may go on.

        Raises:
            UnauthorizedError: its credentials are missing or not accepted.
        """
        ...

    async def aclose(self) -> None:
        """Let go of what the guard holds open."""
        ...


class OpenGuard:
    """Lets everybody in: for callers that something else has checked, and for one's own machine."""

    async def admit(self, headers: RawHeaders) -> None:
        """Let the request in."""

    async def aclose(self) -> None:
        """Nothing is held."""


def make_guard(settings: AuthSettings) -> Guard:
    """
    Return the guard *settings* ask for.

    Raises:
        SettingsError: the packages it needs are not installed.
    """
    if settings.mode == "off":
        return OpenGuard()
    if settings.mode == "jwt":
        try:
            from recsys.serving.auth.signed import SignedTokenGuard  # noqa: PLC0415 - an image may go without
        except ImportError as error:
            raise SettingsError([f"AUTH=jwt needs a package this installation lacks: {error.name}"]) from error
        return SignedTokenGuard(settings)
    from recsys.serving.auth.tokens import TokenFile, TokenGuard  # noqa: PLC0415 - imports this module

    return TokenGuard(TokenFile(settings.tokens_file))


def bearer_token(headers: RawHeaders) -> str:
    """
    Return the bearer token of a request.

    Raises:
        UnauthorizedError: there is none.
    """
    scheme, _, token = (find_header(headers, b"authorization") or "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise UnauthorizedError("send Authorization: Bearer TOKEN", headers=[("www-authenticate", _CHALLENGE)])
    return token


def refuse(detail: str) -> UnauthorizedError:
    """Return the error for a token that is not accepted; *detail* never holds any of it."""
    return UnauthorizedError(detail, headers=[("www-authenticate", f'{_CHALLENGE}, error="invalid_token"')])
