"""Guards against malformed input: key sets, tokens and token files that no issuer or operator should produce."""

import asyncio
import base64
import json
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from chassis.auth.guard import make_guard
from chassis.auth.settings import AuthSettings
from chassis.auth.signed_tokens import SignedTokenGuard
from chassis.auth.tokens import TokenFile, TokenGuard, parse_tokens
from chassis.call import Call, Handler, Reply
from chassis.environment import Reader, SettingsError
from chassis.server.service import Service
from chassis.server.settings import ServingSettings
from chassis.wire.headers import RawHeaders
from chassis.wire.problems import NotReadyError, UnauthorizedError
from tests.clock import Clock

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PUBLIC = {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key())), "kid": "one", "alg": "RS256"}
KEY_SET = json.dumps({"keys": [PUBLIC]}).encode()
SETTINGS = AuthSettings("jwt", Path("-"), "https://issuer", "recsys", "https://issuer/keys", 30.0)


def bearer(token: str) -> RawHeaders:
    return [(b"authorization", b"Bearer " + token.encode())]


def signed(**claims: object) -> str:
    expires = datetime.now(UTC) + timedelta(minutes=5)
    given = {"iss": "https://issuer", "aud": "recsys", "exp": expires, **claims}
    return jwt.encode(given, KEY, algorithm="RS256", headers={"kid": "one"})


class Issuer:
    """An issuer that publishes *body* or hangs, and counts the requests."""

    def __init__(self, body: bytes = KEY_SET) -> None:
        self.body = body
        self.asked = 0
        self.answers = asyncio.Event()
        self.answers.set()

    async def publish(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        await self.answers.wait()
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


MALFORMED = {
    "list": b"[]",
    "number": b"5",
    "nothing": b"",
    "no JSON": b"<html>",
    "not UTF-8": b"\xff\xfe{",
    "deep": b"[" * 100_000,
    "keys of a number": b'{"keys":5}',
    "no keys": b'{"keys":[]}',
    "a key that is not an object": b'{"keys":[1,null,"x",[]]}',
    "a list as id": json.dumps({"keys": [{**PUBLIC, "kid": ["one"]}]}).encode(),
    "an object as id": json.dumps({"keys": [{**PUBLIC, "kid": {}}]}).encode(),
    "a number as modulus": json.dumps({"keys": [{**PUBLIC, "n": 5}]}).encode(),
    "too many keys": json.dumps({"keys": [PUBLIC] * 101}).encode(),
    "a list as type": json.dumps({"keys": [{**PUBLIC, "kty": []}]}).encode(),
    "a list as algorithm": json.dumps({"keys": [{**PUBLIC, "alg": ["RS256"]}]}).encode(),
    "for encryption": json.dumps({"keys": [{**PUBLIC, "use": "enc"}]}).encode(),
}
malformed = pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)


@malformed
async def test_a_malformed_key_set_leaves_the_known_keys(guard, issuer, clock, body):
    """The known keys stay valid if the issuer later publishes a malformed key set."""
    await guard.admit(bearer(signed()), within_s=60)
    issuer.body = body
    clock.now += 1000
    await guard.admit(bearer(signed()), within_s=60)
    assert issuer.asked == 2


@malformed
async def test_without_a_usable_key_the_guard_is_not_ready(guard, issuer, body):
    """An issuer that never published a usable key gives 503, not 401 and not 500."""
    issuer.body = body
    with pytest.raises(NotReadyError):
        await guard.admit(bearer(signed()), within_s=60)


async def test_a_malformed_key_leaves_the_others(guard, issuer):
    """The usable keys of a set count, although other entries are malformed."""
    issuer.body = json.dumps({"keys": [{"kid": ["one"]}, 7, {**PUBLIC, "kid": "two", "n": 5}, PUBLIC]}).encode()
    await guard.admit(bearer(signed()), within_s=60)


def encoded(header: bytes, payload: bytes = b"{}") -> str:
    parts = (base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (header, payload, b"signature"))
    return ".".join(parts)


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 40_000,
        b'{"a":' * 8_000,
        b'{"alg":[],"kid":"one"}',
        b'{"alg":{},"kid":"one"}',
        b'{"alg":null,"kid":"one"}',
        b'{"alg":"RS256","kid":["one"]}',
        b'{"alg":"RS256","kid":"one","crit":1}',
        b'{"alg":"RS256","kid":"one","b64":false}',
        b'{"alg":"RS256","n":' + b"1" * 5000 + b"}",
        b"null",
        b"\xff",
    ],
    ids=lambda header: header[:40].decode("latin-1"),
)
async def test_a_malformed_token_is_refused(guard, header):
    """Any text in place of a token's header gives 401."""
    with pytest.raises(UnauthorizedError):
        await guard.admit(bearer(encoded(header)), within_s=60)


@pytest.mark.parametrize("exp", [[], {}, "soon", 1e400, True, -1], ids=str)
async def test_a_signed_token_with_a_malformed_expiry_is_refused(guard, exp):
    """A claim of the wrong type gives 401, even in a token that the issuer signed."""
    with pytest.raises(UnauthorizedError):
        await guard.admit(bearer(signed(exp=exp)), within_s=60)


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


def faults(text: str) -> tuple[str, ...]:
    return parse_tokens(text).faults


def valid(text: str) -> list[str]:
    return [token.text for token in parse_tokens(text).tokens]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("s3cr#et", "a token cannot contain #"),
        ("secret 2027-13-01", "the expiry after the token is not an ISO 8601 time"),
        ("secret 2027-01-01#soon", "the expiry after the token is not an ISO 8601 time"),
        ("secret never", "the expiry after the token is not an ISO 8601 time"),
        ("s\u00e9cret", "visible ASCII"),
        ("\ufeffsecret", "visible ASCII"),
        ("sec\x00ret", "visible ASCII"),
    ],
)
def test_an_invalid_line_is_named_and_its_token_refused(line, fault):
    """A fault has the line's number and repeats no token; the token of the line is not valid, the other lines are."""
    text = f"# callers\nfirst\n{line}\nlast 2099-01-01 # comment\n"
    (found,) = faults(text)
    assert found.startswith("line 3: ")
    assert fault in found
    assert "secret" not in found
    assert "s3cr" not in found
    assert valid(text) == ["first", "last"]


def test_a_token_with_one_invalid_line_is_refused_whole():
    """A second, valid line does not keep a token alive that an invalid line was to end."""
    assert valid("a\nb\na 2026-99-99\n") == ["b"]


def test_comments_need_a_space():
    """A comment begins with the line or after a space."""
    text = "#one\n  # two\nthree #four # five\nsix\t#seven\neight 2099-01-01T00:00:00Z #nine\n"
    assert (valid(text), faults(text)) == (["three", "six", "eight"], ())


async def test_a_malformed_expiry_ends_the_token(tmp_path, caplog):
    """A token whose expiry is changed to a malformed one is refused within a second, and the log names the line."""
    caplog.set_level(logging.ERROR, "chassis")
    clock, path = Clock(), tmp_path / "tokens"
    path.write_text("first\nsecond\n")
    guard = TokenGuard(TokenFile(path, clock=clock, max_read_s=30))
    await guard.admit(bearer("second"), within_s=60)
    path.write_text("first\nsecond 2026-02-31\n")
    clock.now += 1
    await guard.admit(bearer("first"), within_s=60)
    with pytest.raises(UnauthorizedError):
        await guard.admit(bearer("second"), within_s=60)
    (record,) = caplog.records
    assert record.getMessage() == "token_file_invalid"
    assert "line 2" in record.__dict__["faults"][0]
    await guard.aclose()


async def test_callers_that_come_together_at_the_start_wait_for_the_file(tmp_path):
    """No caller is told that the file cannot be read while another caller's request reads it."""
    path = tmp_path / "tokens"
    path.write_text("first\n")
    guard = TokenGuard(TokenFile(path, max_read_s=30))
    await asyncio.gather(*(guard.admit(bearer("first"), within_s=60) for _ in range(50)))


async def test_a_file_system_that_hangs_leaves_the_known_tokens(tmp_path, monkeypatch):
    """While a read of the file does not end, requests go on with the known tokens, and no second read begins."""
    clock, path, release, reads = Clock(), tmp_path / "tokens", threading.Event(), []
    path.write_text("first\n")
    file = TokenFile(path, clock=clock, max_read_s=0.01)
    while await file.first() != "first":
        pass

    def hang(_: Path) -> None:
        reads.append(1)
        release.wait(30)
        raise OSError

    monkeypatch.setattr(Path, "stat", hang)
    clock.now += 1
    guard = TokenGuard(file)
    await asyncio.gather(*(guard.admit(bearer("first"), within_s=60) for _ in range(20)))
    release.set()
    await file.aclose()
    assert len(reads) == 1


def test_a_start_refuses_an_invalid_file(tmp_path):
    """A function does not start with an invalid token file; the message has each line, and no token."""
    path = tmp_path / "tokens"
    path.write_text("good\ns3cr#et\nother never\n")
    settings = AuthSettings("tokens", path, "-", "-", "-", 30.0)
    with pytest.raises(SettingsError) as caught:
        make_guard(settings)
    assert [fault.partition(": ")[0::2][0] for fault in caught.value.faults] == [str(path)] * 2
    assert [fault.split(": ")[1] for fault in caught.value.faults] == ["line 2", "line 3"]
    assert "s3cr" not in str(caught.value.faults)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="UTF-8"):
        make_guard(settings)


def test_the_keys_address_is_a_url():
    """An address without a scheme is a fault of the settings."""
    reader = Reader({"AUTH": "jwt", "AUTH_JWT_ISSUER": "i", "AUTH_JWT_AUDIENCE": "a", "AUTH_JWKS_URL": "issuer/keys"})
    AuthSettings.read(reader)
    assert reader.faults == ["AUTH_JWKS_URL must be a http(s) URL"]
