import json
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from chassis.auth.guard import OpenGuard, make_guard
from chassis.auth.settings import AuthSettings
from chassis.auth.signed_tokens import SignedTokenGuard
from chassis.auth.tokens import TokenFile, TokenGuard
from chassis.environment import Reader, SettingsError
from chassis.wire.problems import NotReadyError, UnauthorizedError
from tests.clock import Clock


def bearer(token: str) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", b"Bearer " + token.encode("latin-1"))]


def challenge(caught: pytest.ExceptionInfo[UnauthorizedError]) -> str:
    return dict(caught.value.headers)["www-authenticate"]


class TestTokens:
    """A token guard admits the tokens listed in a file."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        path = tmp_path / "tokens"
        path.write_text("# callers\nfirst\nsecond 2027-01-15T08:00:05Z  # soon over\n\n")
        return path

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock(datetime(2027, 1, 15, 8, 0, 0, tzinfo=UTC).timestamp())

    @pytest.fixture
    def tokens(self, file: Path, clock: Clock) -> TokenFile:
        return TokenFile(file, clock=clock, max_read_s=30)

    @pytest.mark.parametrize("token", ["first", "second"])
    async def test_every_listed_token_is_admitted(self, tokens, token):
        """Several tokens are valid at the same time, so that an operator can rotate them."""
        await TokenGuard(tokens).admit(bearer(token), within_s=60.0)

    @pytest.mark.parametrize(
        "headers",
        [[], [(b"authorization", b"")], [(b"authorization", b"Basic Zmlyc3Q=")], [(b"authorization", b"Bearer ")]],
    )
    async def test_a_missing_token_is_challenged(self, tokens, headers):
        """The guard answers a request without a bearer token with a challenge."""
        with pytest.raises(UnauthorizedError) as caught:
            await TokenGuard(tokens).admit(headers, within_s=60.0)
        assert challenge(caught) == 'Bearer realm="recsys"'

    @pytest.mark.parametrize("token", ["wrong", "firs", "firstt", "#", "\xe9"])
    async def test_a_wrong_token_is_refused(self, tokens, token):
        """The guard refuses a token that is not in the file, and the refusal does not repeat the token."""
        with pytest.raises(UnauthorizedError) as caught:
            await TokenGuard(tokens).admit(bearer(token), within_s=60.0)
        assert 'error="invalid_token"' in challenge(caught)
        assert caught.value.problem()["detail"] == "the token is unknown, expired or revoked"

    async def test_an_expired_token_is_refused(self, tokens, clock):
        """The guard refuses a token after its expiry time."""
        clock.now += 5
        with pytest.raises(UnauthorizedError):
            await TokenGuard(tokens).admit(bearer("second"), within_s=60.0)

    async def test_file_changes_take_effect_without_a_restart(self, tokens, file, clock):
        """One second after the file changes, the guard admits an added token and refuses a removed one."""
        guard = TokenGuard(tokens)
        await guard.admit(bearer("first"), within_s=60.0)
        file.write_text("third\n")
        clock.now += 1
        await guard.admit(bearer("third"), within_s=60.0)
        with pytest.raises(UnauthorizedError):
            await guard.admit(bearer("first"), within_s=60.0)

    async def test_an_empty_file_revokes_all_tokens(self, tokens, file, clock):
        """The guard admits no caller while the token file is empty."""
        guard = TokenGuard(tokens)
        await guard.admit(bearer("first"), within_s=60.0)
        file.write_text("")
        clock.now += 1
        with pytest.raises(UnauthorizedError):
            await guard.admit(bearer("first"), within_s=60.0)

    async def test_a_missing_file_keeps_the_known_tokens(self, tokens, file, clock):
        """The tokens read last stay valid while the file is missing."""
        guard = TokenGuard(tokens)
        await guard.admit(bearer("first"), within_s=60.0)
        file.unlink()
        clock.now += 1
        await guard.admit(bearer("first"), within_s=60.0)
        await guard.aclose()

    async def test_a_guard_without_a_token_file_is_not_ready(self, tmp_path):
        """A guard that has never read its file reports that it is not ready, not that the caller is unauthorized."""
        with pytest.raises(NotReadyError):
            await TokenGuard(TokenFile(tmp_path / "missing", max_read_s=30)).admit(bearer("first"), within_s=60.0)

    async def test_the_first_valid_token_is_sent(self, tokens, file, clock):
        """A client sends the first token of its file that has not expired."""
        assert await tokens.first() == "first"
        file.write_text("old 2020-01-01\nnew\n")
        clock.now += 1
        assert await tokens.first() == "new"
        file.write_text("")
        clock.now += 1
        assert await tokens.first() is None


class Issuer:
    """An issuer of signed tokens with replaceable keys, and the transport that publishes the keys."""

    def __init__(self) -> None:
        self.keys = {"one": rsa.generate_private_key(public_exponent=65537, key_size=2048)}
        self.fetches = 0
        self.away = False

    def token(self, *, key_id: str = "one", **changes: object) -> str:
        now = datetime.now(UTC)
        claims = {"iss": "https://issuer", "aud": "recsys", "exp": now + timedelta(minutes=5), "sub": "me", **changes}
        claims = {
            name: now + value if isinstance(value, timedelta) else value
            for name, value in claims.items()
            if value is not None
        }
        key = self.keys.get(key_id) or rsa.generate_private_key(public_exponent=65537, key_size=2048)
        return jwt.encode(claims, key, algorithm="RS256", headers={"kid": key_id})

    def publish(self, request: httpx.Request) -> httpx.Response:
        self.fetches += 1
        if self.away:
            raise httpx.ConnectError("away")
        keys = []
        for key_id, key in self.keys.items():
            document = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
            keys.append({**document, "kid": key_id, "alg": "RS256", "use": "sig"})
        return httpx.Response(200, json={"keys": keys})


@pytest.fixture(scope="module")
def long_lived() -> Issuer:
    """Create the issuer once per module, because generating RSA keys is slow."""
    return Issuer()


class TestSigned:
    """A signed-token guard admits tokens that a trusted issuer signed."""

    SETTINGS = AuthSettings("jwt", Path("-"), "https://issuer", "recsys", "https://issuer/keys", 30.0)

    @pytest.fixture
    def issuer(self, long_lived: Issuer) -> Iterator[Issuer]:
        long_lived.fetches, long_lived.away = 0, False
        yield long_lived
        long_lived.keys = {"one": long_lived.keys["one"]}

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock(1_800_000_000.0)

    @pytest.fixture
    def guard(self, issuer: Issuer, clock: Clock) -> SignedTokenGuard:
        return SignedTokenGuard(self.SETTINGS, transport=httpx.MockTransport(issuer.publish), clock=clock)

    async def test_a_valid_token_is_admitted_and_keys_are_fetched_once(self, guard, issuer):
        """The guard fetches the issuer's keys once, not for every request."""
        for _ in range(3):
            await guard.admit(bearer(issuer.token()), within_s=60.0)
        assert issuer.fetches == 1
        await guard.aclose()

    @pytest.mark.parametrize(
        "changes",
        [
            {"exp": timedelta(minutes=-2)},
            {"exp": None},
            {"nbf": timedelta(minutes=2)},
            {"iss": "https://other"},
            {"aud": "others"},
            {"aud": None},
            {"key_id": "unknown"},
        ],
        ids=str,
    )
    async def test_an_invalid_token_is_refused(self, guard, issuer, changes):
        """
        A token that is expired, early, from another issuer, for another audience or signed with an unknown key is
        refused.
        """
        with pytest.raises(UnauthorizedError) as caught:
            await guard.admit(bearer(issuer.token(**changes)), within_s=60.0)
        assert 'error="invalid_token"' in challenge(caught)

    @pytest.mark.parametrize("token", ["garbage", "a.b.c", "..", "eyJhbGciOiJub25lIn0.e30."])
    async def test_a_malformed_token_is_refused(self, guard, token):
        """The guard refuses text that is not a signed token, including a token without a signature."""
        with pytest.raises(UnauthorizedError):
            await guard.admit(bearer(token), within_s=60.0)

    async def test_a_foreign_signature_is_refused(self, guard, issuer):
        """The guard refuses a token that names the issuer's key but is signed with another key."""
        forger = Issuer()
        with pytest.raises(UnauthorizedError):
            await guard.admit(bearer(forger.token()), within_s=60.0)

    async def test_another_algorithm_is_refused(self, guard, issuer):
        """The guard refuses a signature algorithm that does not match the type of the issuer's key."""
        token = jwt.encode(
            {"iss": "https://issuer", "aud": "recsys", "exp": time.time() + 60},
            ec.generate_private_key(ec.SECP256R1()),
            algorithm="ES256",
            headers={"kid": "one"},
        )
        with pytest.raises(UnauthorizedError):
            await guard.admit(bearer(token), within_s=60.0)

    async def test_small_clock_differences_are_tolerated(self, guard, issuer):
        """The guard admits a token that expired within the leeway."""
        await guard.admit(bearer(issuer.token(exp=timedelta(seconds=-10))), within_s=60.0)

    async def test_a_new_key_is_found(self, guard, issuer, clock):
        """The guard fetches the keys again when a token names an unknown key, but limits how often it does so."""
        await guard.admit(bearer(issuer.token()), within_s=60.0)
        issuer.keys["two"] = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        clock.now += 11
        await guard.admit(bearer(issuer.token(key_id="two")), within_s=60.0)
        for _ in range(5):
            with pytest.raises(UnauthorizedError):
                await guard.admit(bearer(issuer.token(key_id="three")), within_s=60.0)
        assert issuer.fetches == 2

    async def test_known_keys_survive_an_outage_of_the_issuer(self, guard, issuer, clock):
        """The guard keeps using the keys it knows while the issuer is unreachable."""
        await guard.admit(bearer(issuer.token()), within_s=60.0)
        issuer.away = True
        clock.now += 1000
        await guard.admit(bearer(issuer.token()), within_s=60.0)
        assert issuer.fetches == 2

    async def test_a_guard_without_keys_is_not_ready(self, guard, issuer):
        """The guard reports that it is not ready when the issuer has never answered."""
        issuer.away = True
        with pytest.raises(NotReadyError):
            await guard.admit(bearer(issuer.token()), within_s=60.0)


def read(**env: str) -> tuple[AuthSettings, list[str]]:
    reader = Reader(env)
    return AuthSettings.read(reader), reader.faults


def test_authentication_is_disabled_only_explicitly():
    """A configuration without AUTH is refused; only AUTH=off disables authentication."""
    assert read()[1] == ["AUTH is not set"]
    assert "must be one of" in read(AUTH="none")[1][0]
    assert isinstance(make_guard(read(AUTH="off")[0]), OpenGuard)


def test_each_mode_requires_its_settings():
    """AUTH=tokens requires a token file, and AUTH=jwt requires an issuer, an audience and a key URL."""
    assert read(AUTH="tokens")[1] == ["AUTH=tokens needs AUTH_TOKENS_FILE"]
    assert len(read(AUTH="jwt", AUTH_JWT_ISSUER="x")[1]) == 1
    complete = {"AUTH_JWT_ISSUER": "i", "AUTH_JWT_AUDIENCE": "a", "AUTH_JWKS_URL": "http://k"}
    settings, faults = read(AUTH="jwt", **complete)
    assert faults == []
    assert isinstance(make_guard(settings), SignedTokenGuard)
    assert isinstance(make_guard(read(AUTH="tokens", AUTH_TOKENS_FILE="/x")[0]), TokenGuard)


def test_missing_packages_are_a_settings_error(monkeypatch):
    """An image without the packages for signed tokens reports this when it starts."""
    monkeypatch.setitem(sys.modules, "jwt", None)
    monkeypatch.delitem(sys.modules, "chassis.auth.signed_tokens")
    with pytest.raises(SettingsError, match="jwt"):
        make_guard(TestSigned.SETTINGS)
