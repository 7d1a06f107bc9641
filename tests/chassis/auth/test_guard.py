"""The settings choose the guard."""

import sys

import pytest

from chassis.auth.guard import OpenGuard, make_guard
from chassis.auth.settings import AuthSettings
from chassis.auth.signed_tokens import SignedTokenGuard
from chassis.auth.tokens import TokenGuard
from chassis.environment import Reader, SettingsError

SIGNED = {"AUTH": "jwt", "AUTH_JWT_ISSUER": "i", "AUTH_JWT_AUDIENCE": "a", "AUTH_JWKS_URL": "http://k"}


def read(**env: str) -> tuple[AuthSettings, list[str]]:
    reader = Reader(env)
    return AuthSettings.read(reader), reader.faults


def test_authentication_is_disabled_only_explicitly():
    """A configuration without AUTH is refused; only AUTH=off disables authentication."""
    assert read()[1] == ["AUTH is not set"]
    assert "must be one of" in read(AUTH="none")[1][0]
    assert isinstance(make_guard(read(AUTH="off")[0]), OpenGuard)


def test_each_mode_requires_its_settings():
    """AUTH=tokens requires a token file, and AUTH=jwt requires an issuer, an audience and a key URL with a scheme."""
    assert read(AUTH="tokens")[1] == ["AUTH=tokens needs AUTH_TOKENS_FILE"]
    assert len(read(AUTH="jwt", AUTH_JWT_ISSUER="x")[1]) == 1
    for url in ("issuer/keys", "https://", "http://[", "http://issuer:port"):
        assert read(**SIGNED | {"AUTH_JWKS_URL": url})[1] == [f"AUTH_JWKS_URL must be a http(s) URL, not {url!r}"]
    settings, faults = read(**SIGNED)
    assert faults == []
    assert isinstance(make_guard(settings), SignedTokenGuard)
    assert isinstance(make_guard(read(AUTH="tokens", AUTH_TOKENS_FILE="/x")[0]), TokenGuard)


def test_missing_packages_are_a_settings_error(monkeypatch):
    """An image without the packages for signed tokens reports this when it starts."""
    monkeypatch.setitem(sys.modules, "jwt", None)
    monkeypatch.delitem(sys.modules, "chassis.auth.signed_tokens")
    with pytest.raises(SettingsError, match="jwt"):
        make_guard(read(**SIGNED)[0])
