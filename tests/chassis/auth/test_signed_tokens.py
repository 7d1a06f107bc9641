"""The guard that admits tokens which a trusted issuer signed, also with key sets and tokens that no issuer should produce."""

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from chassis.auth.settings import AuthSettings
from chassis.auth.signed_tokens import SignedTokenGuard
from chassis.call import Call, Handler, Reply
from chassis.environment import Reader
from chassis.server.service import Service
from chassis.server.settings import ServingSettings
from chassis.wire.headers import RawHeaders
from chassis.wire.problems import NotReadyError, UnauthorizedError
from tests.clock import Clock

KEY, OTHER_KEY = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))


def public(key: rsa.RSAPrivateKey, key_id: str) -> dict[str, Any]:
    return {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key())), "kid": key_id, "alg": "RS256"}


def key_set(*keys: object) -> bytes:
    return json.dumps({"keys": keys}).encode()


PUBLIC = public(KEY, "one")
SETTINGS = AuthSettings("jwt", Path("-"), "https://issuer", "recsys", "https://issuer/keys", 30.0)


def bearer(token: str) -> RawHeaders:
    return [(b"authorization", b"Bearer " + token.encode())]


def signed(*, key: Any = KEY, algorithm: str = "RS256", key_id: str = "one", **changes: object) -> str:
    """Return a token with *changes* to its claims; a time span counts from now, and None leaves the claim out."""
    now = datetime.now(UTC)
    claims = {"iss": "https://issuer", "aud": "recsys", "exp": timedelta(minutes=5), "sub": "me", **changes}
    given = {name: now + value if isinstance(value, timedelta) else value for name, value in claims.items()}
    given = {name: value for name, value in given.items() if value is not None}
    return jwt.encode(given, key, algorithm=algorithm, headers={"kid": key_id})


class Issuer:
    """An issuer that publishes *body*, is unreachable without one, or hangs, and counts the requests."""

    def __init__(self) -> None:
        self.body: bytes | None = key_set(PUBLIC)
        self.asked = 0
        self.answers = asyncio.Event()
        self.answers.set()

    async def publish(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        await self.answers.wait()
        if self.body is None:
            raise httpx.ConnectError("away")
        return httpx.Response(200, content=self.body)


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def guard(issuer: Issuer, clock: Clock) -> AsyncIterator[SignedTokenGuard]:
    made = SignedTokenGuard(SETTINGS, transport=httpx.MockTransport(issuer.publish), clock=clock)
    yield made
    await made.aclose()


async def test_a_valid_token_is_admitted_and_keys_are_fetched_once(guard, issuer):
    """The guard fetches the issuer's keys once, not for every request."""
    for _ in range(3):
        await guard.admit(bearer(signed()), within_s=60)
    assert issuer.asked == 1


def encoded(header: bytes) -> str:
    parts = (base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (header, b"{}", b"signature"))
    return ".".join(parts)


@pytest.mark.parametrize(
    "token",
    [
        "garbage",
        "a.b.c",
        "..",
        "eyJhbGciOiJub25lIn0.e30.",
        encoded(b"[" * 40_000),
        encoded(b'{"a":' * 8_000),
        encoded(b'{"alg":[],"kid":"one"}'),
        encoded(b'{"alg":{},"kid":"one"}'),
        encoded(b'{"alg":null,"kid":"one"}'),
        encoded(b'{"alg":"RS256","kid":["one"]}'),
        encoded(b'{"alg":"RS256","kid":"one","crit":1}'),
        encoded(b'{"alg":"RS256","kid":"one","b64":false}'),
        encoded(b'{"alg":"RS256","n":' + b"1" * 5000 + b"}"),
        encoded(b"null"),
        encoded(b"\xff"),
    ],
    ids=lambda token: token[:40],
)
async def test_a_malformed_token_is_refused(guard, token):
    """The guard refuses text that is not a signed token with 401, for any header of the token."""
    with pytest.raises(UnauthorizedError):
        await guard.admit(bearer(token), within_s=60)


NO_EXPIRIES: list[object] = [None, [], {}, "soon", 1e400, True, -1]


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": timedelta(minutes=-2)},
        *({"exp": expiry} for expiry in NO_EXPIRIES),
        {"nbf": timedelta(minutes=2)},
        {"iss": "https://other"},
        {"aud": "others"},
        {"aud": None},
        {"key_id": "unknown"},
        {"key": OTHER_KEY},
        {"key": ec.generate_private_key(ec.SECP256R1()), "algorithm": "ES256"},
    ],
    # A key has no text that is the same in every worker.
    ids=", ".join,
)
async def test_an_invalid_token_is_refused(guard, changes):
    """
    The guard refuses a token that is expired, early, from another issuer or for another audience, that has a claim of a
    wrong type, or that another key or another algorithm than the issuer's has signed.
    """
    with pytest.raises(UnauthorizedError) as caught:
        await guard.admit(bearer(signed(**changes)), within_s=60)
    assert 'error="invalid_token"' in dict(caught.value.headers)["www-authenticate"]


async def test_small_clock_differences_are_tolerated(guard):
    """The guard admits a token that expired within the leeway."""
    await guard.admit(bearer(signed(exp=timedelta(seconds=-10))), within_s=60)


async def test_a_new_key_is_found(guard, issuer, clock):
    """The guard fetches the keys again when a token names an unknown key, but limits how often it does so."""
    await guard.admit(bearer(signed()), within_s=60)
    issuer.body = key_set(PUBLIC, {**public(OTHER_KEY, "two"), "use": "sig"})
    clock.now += 11
    await guard.admit(bearer(signed(key=OTHER_KEY, key_id="two")), within_s=60)
    for _ in range(5):
        with pytest.raises(UnauthorizedError):
            await guard.admit(bearer(signed(key_id="three")), within_s=60)
    assert issuer.asked == 2


NO_KEY_SETS = {
    "unreachable": None,
    "list": b"[]",
    "number": b"5",
    "nothing": b"",
    "no JSON": b"<html>",
    "not UTF-8": b"\xff\xfe{",
    "deep": b"[" * 100_000,
    "keys of a number": b'{"keys":5}',
    "no keys": b'{"keys":[]}',
    "a key that is not an object": b'{"keys":[1,null,"x",[]]}',
    "a list as id": key_set({**PUBLIC, "kid": ["one"]}),
    "an object as id": key_set({**PUBLIC, "kid": {}}),
    "a number as modulus": key_set({**PUBLIC, "n": 5}),
    "too many keys": key_set(*[PUBLIC] * 101),
    "a list as type": key_set({**PUBLIC, "kty": []}),
    "a list as algorithm": key_set({**PUBLIC, "alg": ["RS256"]}),
    "for encryption": key_set({**PUBLIC, "use": "enc"}),
}
no_key_set = pytest.mark.parametrize("body", NO_KEY_SETS.values(), ids=NO_KEY_SETS)


@no_key_set
async def test_known_keys_survive_a_failure_of_the_issuer(guard, issuer, clock, body):
    """The known keys stay valid while the issuer is unreachable or publishes a malformed key set."""
    await guard.admit(bearer(signed()), within_s=60)
    issuer.body = body
    clock.now += 1000
    await guard.admit(bearer(signed()), within_s=60)
    assert issuer.asked == 2


@no_key_set
async def test_without_a_usable_key_the_guard_is_not_ready(guard, issuer, body):
    """An issuer that never published a usable key gives 503, not 401 and not 500."""
    issuer.body = body
    with pytest.raises(NotReadyError):
        await guard.admit(bearer(signed()), within_s=60)


async def test_a_malformed_key_leaves_the_others(guard, issuer):
    """The usable keys of a set count, although other entries are malformed."""
    issuer.body = key_set({"kid": ["one"]}, 7, {**PUBLIC, "kid": "two", "n": 5}, PUBLIC)
    await guard.admit(bearer(signed()), within_s=60)


@pytest.mark.parametrize("status", [204, 301, 302, 307, 308, 404, 500])
async def test_a_redirected_key_set_is_not_followed(caplog, status):
    """The guard asks only the configured address, admits no caller, and logs the status of the issuer's answer."""
    asked: list[str] = []

    def publish(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(status, headers={"location": "https://elsewhere/keys"})

    guard = SignedTokenGuard(SETTINGS, transport=httpx.MockTransport(publish))
    with caplog.at_level(logging.WARNING), pytest.raises(NotReadyError):
        await guard.admit(bearer(signed()), within_s=60)
    await guard.aclose()
    assert asked == [SETTINGS.jwks_url]
    (record,) = [record for record in caplog.records if record.msg == "jwks_unavailable"]
    assert f"the issuer answers {status};" in record.__dict__["reason"]


async def test_a_hanging_issuer_leaves_the_known_keys(guard, issuer, clock):
    """While the issuer does not answer, known keys are used, however old they are."""
    await guard.admit(bearer(signed()), within_s=60)
    issuer.answers.clear()
    clock.now += 1000
    await guard.admit(bearer(signed()), within_s=0.01)


async def test_a_hanging_issuer_does_not_hold_a_request_past_its_budget(issuer):
    """Without keys, the request is answered with 503 when its budget ends; the fetch goes on for the next request."""
    issuer.answers.clear()
    env = {"AUTH": "off", "METRICS_PORT": "0"}

    async def handle(call: Call) -> Reply:
        return Reply(b"{}")

    @asynccontextmanager
    async def open_handler() -> AsyncIterator[Handler]:
        yield handle

    guard = SignedTokenGuard(SETTINGS, transport=httpx.MockTransport(issuer.publish))
    settings = ServingSettings.read(Reader(env), name="x", max_body_bytes=1000)
    service = Service("x", open_handler, settings=settings, guard=guard)
    receive: Callable[[], Awaitable[dict[str, object]]] = asyncio.Event().wait  # type: ignore[assignment]

    async def post(budget_ms: bytes) -> Reply:
        headers = [*bearer(signed()), (b"x-request-timeout-ms", budget_ms)]
        return await service.answer({"method": "POST", "path": "/", "headers": headers}, receive, b"{}")

    refused = await post(b"20")
    assert (refused.status, dict(refused.headers)[b"retry-after"]) == (503, b"1")
    issuer.answers.set()
    assert (await post(b"5000")).status == 200
    assert issuer.asked == 1
    await service.stop()


async def test_a_caller_that_disconnects_does_not_end_the_fetch(guard, issuer, turns):
    """The keys arrive for the other callers although the caller that first asked for them has left."""
    issuer.answers.clear()
    leaving = asyncio.create_task(guard.admit(bearer(signed()), within_s=60))
    await turns()
    leaving.cancel()
    await turns()
    waiting = asyncio.create_task(guard.admit(bearer(signed()), within_s=60))
    await turns()
    issuer.answers.set()
    await waiting
    assert leaving.cancelled()
    assert issuer.asked == 1
