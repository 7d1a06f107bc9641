"""Guards, which admit a function's callers or refuse them."""

from typing import Protocol

from chassis.auth.settings import AuthSettings
from chassis.environment import SettingsError
from chassis.wire.headers import RawHeaders


class Guard(Protocol):
    """Admits requests or refuses them."""

    async def admit(self, headers: RawHeaders, *, within_s: float) -> None:
        """
        Return when the request may go on. Waits at most *within_s* for what is needed to decide.

        Raises:
            UnauthorizedError: its credentials are missing or not accepted.
            NotReadyError: the guard cannot decide yet.
        """
        ...

    async def aclose(self) -> None:
        """Close the guard's files and connections."""
        ...


class OpenGuard:
    """Admits every caller, for functions whose callers are checked elsewhere or that run on a developer's machine."""

    async def admit(self, headers: RawHeaders, *, within_s: float) -> None:
        """Admit the request."""

    async def aclose(self) -> None:
        """Close nothing."""


def make_guard(settings: AuthSettings) -> Guard:
    """
    Return the guard that *settings* select.

    Raises:
        SettingsError: the packages it needs are not installed, or the token file has invalid lines.
    """
    if settings.mode == "off":
        return OpenGuard()
    if settings.mode == "jwt":
        try:
            from chassis.auth.signed_tokens import SignedTokenGuard  # noqa: PLC0415 - an image may lack the packages
        except ImportError as error:
            raise SettingsError([f"AUTH=jwt needs the package {error.name}, which is not installed"]) from error
        return SignedTokenGuard(settings)
    from chassis.auth.tokens import TokenFile, TokenGuard  # noqa: PLC0415 - read only where it is used

    return TokenGuard(TokenFile(settings.tokens_file).check())
