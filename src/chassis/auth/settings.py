"""Settings of authentication."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from chassis.environment import Reader

AuthMode = Literal["off", "tokens", "jwt"]
_MODES = ("off", "tokens", "jwt")


@dataclass(frozen=True)
class AuthSettings:
    """
    How a function authenticates its callers.

    Attributes:
        mode: `tokens` (a file), `jwt` (an issuer's signatures) or `off`. The mode has no default, so that a function
            without authentication is always intended.
        tokens_file: With `tokens`: the file; see `TokenFile` for its lines.
        issuer: With `jwt`: the required `iss` claim.
        audience: With `jwt`: the required `aud` claim.
        jwks_url: With `jwt`: the address of the issuer's keys.
        leeway_s: With `jwt`: the largest accepted difference between clocks.
    """

    mode: AuthMode
    tokens_file: Path
    issuer: str
    audience: str
    jwks_url: str
    leeway_s: float

    @classmethod
    def read(cls, env: Reader) -> "AuthSettings":
        """Read the settings and add their faults to *env*."""
        mode = env.text("AUTH")
        env.require(mode in {*_MODES, ""}, f"AUTH must be one of {', '.join(_MODES)}, not {mode!r}")
        settings = cls(
            mode=cast("AuthMode", mode),
            tokens_file=Path(env.text("AUTH_TOKENS_FILE", "-")),
            issuer=env.text("AUTH_JWT_ISSUER", "-"),
            audience=env.text("AUTH_JWT_AUDIENCE", "-"),
            jwks_url=env.http_url("AUTH_JWKS_URL", "-"),
            leeway_s=env.number("AUTH_JWT_LEEWAY_S", 30.0, most=600.0),
        )
        env.require(mode != "tokens" or str(settings.tokens_file) != "-", "AUTH=tokens needs AUTH_TOKENS_FILE")
        env.require(
            mode != "jwt" or "-" not in {settings.issuer, settings.audience, settings.jwks_url},
            "AUTH=jwt needs AUTH_JWT_ISSUER, AUTH_JWT_AUDIENCE and AUTH_JWKS_URL",
        )
        return settings
