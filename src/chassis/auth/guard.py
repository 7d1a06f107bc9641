"""The guard at a function's door."""

from typing import Protocol

from chassis.auth.settings import AuthSettings
from chassis.environment import SettingsError
from chassis.wire.headers import RawHeaders


class Guard(Protocol):
    """Lets requests in or refuses them."""

    async def admit(self, headers: RawHeaders, *, within_s: float) -> None:
        """
        Return when the request may go on. Waits at most *within_s* for what is needed to decide.

        Raises:
            UnauthorizedError: its credentials are missing or not accepted.
            NotReadyError: the guard cannot decide yet.
        """
        ...

    async def aclose(self) -> None:
        """Let go of what the guard holds open."""
        ...


class OpenGuard:
    """Lets everybody in: for callers that something else has checked, and for one's own machine."""

    async def admit(self, headers: RawHeaders, *, within_s: float) -> None:
        """Let the request in."""

    async def aclose(self) -> None:
        """Nothing is held."""


def make_guard(settings: AuthSettings) -> Guard:
    """
    Return the guard *settings* ask for.

    Raises:
        SettingsError: the packages it needs are not installed, or the token file has invalid lines.
    """
    if settings.mode == "off":
        return OpenGuard()
    if settings.mode == "jwt":
        try:
            from chassis.auth.signed import SignedTokenGuard  # noqa: PLC0415 - an image may go without
        except ImportError as error:
            raise SettingsError([f"AUTH=jwt needs a package this installation lacks: {error.name}"]) from error
        return SignedTokenGuard(settings)
    from chassis.auth.tokens import TokenFile, TokenGuard  # noqa: PLC0415 - read only where it is used

    return TokenGuard(TokenFile(settings.tokens_file).check())
