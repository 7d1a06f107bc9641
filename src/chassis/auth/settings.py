"""What a function must be told about its callers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast
from urllib.parse import urlsplit

from chassis.environment import Reader

Mode = Literal["off", "tokens", "jwt"]
_MODES = ("off", "tokens", "jwt")


@dataclass(frozen=True)
class AuthSettings:
    """
    How callers prove who they are.

    Attributes:
        mode: `tokens` (a file), `jwt` (an issuer's signatures), `off` (not at all). There is no default: a door that
            is open by forgetfulness looks like one that is open on purpose.
        tokens_file: With `tokens`: the file; see `TokenFile` for its lines.
        issuer: With `jwt`: the `iss` claim wanted.
        audience: With `jwt`: the `aud` claim wanted.
        jwks_url: With `jwt`: where the issuer's keys are.
        leeway_s: With `jwt`: how far clocks may differ.
    """

    mode: Mode
    tokens_file: Path
    issuer: str
    audience: str
    jwks_url: str
    leeway_s: float

    @classmethod
    def read(cls, env: Reader) -> "AuthSettings":
        """Read the settings; faults stay with *env*."""
        mode = env.text("AUTH")
        env.require(mode in {*_MODES, ""}, f"AUTH must be one of {', '.join(_MODES)}, not {mode!r}")
        settings = cls(
            mode=cast("Mode", mode),
            tokens_file=Path(env.text("AUTH_TOKENS_FILE", "-")),
            issuer=env.text("AUTH_JWT_ISSUER", "-"),
            audience=env.text("AUTH_JWT_AUDIENCE", "-"),
            jwks_url=env.text("AUTH_JWKS_URL", "-"),
            leeway_s=env.number("AUTH_JWT_LEEWAY_S", 30.0, most=600.0),
        )
        env.require(mode != "tokens" or str(settings.tokens_file) != "-", "AUTH=tokens wants AUTH_TOKENS_FILE")
        env.require(
            mode != "jwt" or "-" not in {settings.issuer, settings.audience, settings.jwks_url},
            "AUTH=jwt wants AUTH_JWT_ISSUER, AUTH_JWT_AUDIENCE and AUTH_JWKS_URL",
        )
        env.require(
            settings.jwks_url == "-" or urlsplit(settings.jwks_url).scheme in {"http", "https"},
            "AUTH_JWKS_URL must be a http(s) URL",
        )
        return settings
