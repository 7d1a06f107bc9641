"""The guard that admits the tokens listed in a file. An editor or an operator may have left the file in any form."""

import asyncio
import logging
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from chassis.auth.guard import make_guard
from chassis.auth.settings import AuthSettings
from chassis.auth.tokens import TokenFile, TokenGuard, parse_tokens
from chassis.environment import SettingsError
from chassis.wire.headers import RawHeaders
from chassis.wire.problems import NotReadyError, UnauthorizedError
from tests.clock import Clock


def bearer(token: str) -> RawHeaders:
    return [(b"authorization", b"Bearer " + token.encode("latin-1"))]


def challenge(caught: pytest.ExceptionInfo[UnauthorizedError]) -> str:
    return dict(caught.value.headers)["www-authenticate"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text("# callers\nfirst\nsecond 2027-01-15T08:00:05Z  # soon over\n\n")
    return path


@pytest.fixture
def clock() -> Clock:
    return Clock(datetime(2027, 1, 15, 8, 0, 0, tzinfo=UTC).timestamp())


@pytest.fixture
def tokens(file: Path, clock: Clock) -> TokenFile:
    return TokenFile(file, clock=clock, max_read_s=30)


@pytest.mark.parametrize("token", ["first", "second"])
async def test_every_listed_token_is_admitted(tokens, token):
    """Several tokens are valid at the same time, so that an operator can rotate them."""
    await TokenGuard(tokens).admit(bearer(token), within_s=60)


@pytest.mark.parametrize(
    "headers",
    [[], [(b"authorization", b"")], [(b"authorization", b"Basic Zmlyc3Q=")], [(b"authorization", b"Bearer ")]],
)
async def test_a_missing_token_is_challenged(tokens, headers):
    """The guard answers a request without a bearer token with a challenge."""
    with pytest.raises(UnauthorizedError) as caught:
        await TokenGuard(tokens).admit(headers, within_s=60)
    assert challenge(caught) == 'Bearer realm="recsys"'


@pytest.mark.parametrize("token", ["wrong", "firs", "firstt", "#", "\xe9"])
async def test_a_wrong_token_is_refused(tokens, token):
    """The guard refuses a token that is not in the file, and the refusal does not repeat the token."""
    with pytest.raises(UnauthorizedError) as caught:
        await TokenGuard(tokens).admit(bearer(token), within_s=60)
    assert 'error="invalid_token"' in challenge(caught)
    assert caught.value.problem()["detail"] == "the token is unknown, expired or revoked"


async def test_an_expired_token_is_refused(tokens, clock):
    """The guard refuses a token after its expiry time."""
    clock.now += 5
    with pytest.raises(UnauthorizedError):
        await TokenGuard(tokens).admit(bearer("second"), within_s=60)


@pytest.mark.parametrize("text", ["third\n", "", "first 2026-02-31\n"], ids=["changed", "empty", "malformed"])
async def test_file_changes_take_effect_without_a_restart(tokens, file, clock, text):
    """One second after the file changes, the guard admits its tokens, and refuses one that it lists no more."""
    guard = TokenGuard(tokens)
    await guard.admit(bearer("first"), within_s=60)
    file.write_text(text + "added\n" * bool(text))
    clock.now += 1
    if text:
        await guard.admit(bearer("added"), within_s=60)
    with pytest.raises(UnauthorizedError):
        await guard.admit(bearer("first"), within_s=60)


async def test_the_log_names_a_malformed_line(tokens, file, clock, caplog):
    """A file that becomes invalid is one line of the log, with the number of each malformed line."""
    caplog.set_level(logging.ERROR, "chassis")
    file.write_text("first\nsecond 2026-02-31\n")
    assert await tokens.first() == "first"
    (record,) = caplog.records
    assert record.getMessage() == "token_file_invalid"
    assert "line 2" in record.__dict__["faults"][0]


async def test_a_missing_file_keeps_the_known_tokens(tokens, file, clock):
    """The tokens read last stay valid while the file is missing."""
    guard = TokenGuard(tokens)
    await guard.admit(bearer("first"), within_s=60)
    file.unlink()
    clock.now += 1
    await guard.admit(bearer("first"), within_s=60)
    await guard.aclose()


async def test_a_guard_without_a_token_file_is_not_ready(tmp_path):
    """A guard that has never read its file reports that it is not ready, not that the caller is unauthorized."""
    with pytest.raises(NotReadyError):
        await TokenGuard(TokenFile(tmp_path / "missing", max_read_s=30)).admit(bearer("first"), within_s=60)


async def test_the_first_valid_token_is_sent(tokens, file, clock):
    """A client sends the first token of its file that has not expired."""
    assert await tokens.first() == "first"
    file.write_text("old 2020-01-01\nnew\n")
    clock.now += 1
    assert await tokens.first() == "new"
    file.write_text("")
    clock.now += 1
    assert await tokens.first() is None


async def test_callers_that_come_together_at_the_start_wait_for_the_file(tokens):
    """No caller is told that the file cannot be read while another caller's request reads it."""
    guard = TokenGuard(tokens)
    await asyncio.gather(*(guard.admit(bearer("first"), within_s=60) for _ in range(50)))


async def test_a_file_system_that_hangs_leaves_the_known_tokens(file, clock, monkeypatch):
    """While a read of the file does not end, requests go on with the known tokens, and no second read begins."""
    release, reads = threading.Event(), []
    tokens = TokenFile(file, clock=clock, max_read_s=0.01)
    while await tokens.first() != "first":
        pass

    def hang(_: Path) -> None:
        reads.append(1)
        release.wait(30)
        raise OSError

    monkeypatch.setattr(Path, "stat", hang)
    clock.now += 1
    guard = TokenGuard(tokens)
    await asyncio.gather(*(guard.admit(bearer("first"), within_s=60) for _ in range(20)))
    release.set()
    await tokens.aclose()
    assert len(reads) == 1


def test_a_start_refuses_an_invalid_file(file):
    """A function does not start with an invalid token file; the message has each line, and no token."""
    settings = AuthSettings("tokens", file, "-", "-", "-", 30.0)
    file.write_text("good\ns3cr#et\nother never\n")
    with pytest.raises(SettingsError) as caught:
        make_guard(settings)
    assert [fault.split(": ")[:2] for fault in caught.value.faults] == [[str(file), "line 2"], [str(file), "line 3"]]
    assert "s3cr" not in str(caught.value.faults)
    for encoded in (b"\xff\xfe", "one\n".encode("utf-16")):
        file.write_bytes(encoded)
        with pytest.raises(SettingsError, match="not UTF-8"):
            make_guard(settings)


@pytest.mark.may_block
@pytest.mark.parametrize("text", [b"\xef\xbb\xbfone\r\ntwo\r\n", b"\xef\xbb\xbf# of the shop\none\ntwo", b"one\rtwo"])
async def test_a_token_file_may_come_from_any_editor(file, text):
    """The first token does not include a byte order mark, and any line end ends a token."""
    file.write_bytes(text)
    tokens = TokenFile(file).check()
    assert [token.text for token in await tokens.tokens()] == ["one", "two"]
    await tokens.aclose()


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
        *((f"s3cr{character}et", "visible ASCII") for character in "\u00e9\ufeff\x00"),
        *((f"s3cr{space}et", "not an ISO 8601 time") for space in "\f\v\x1c\x85\u2028"),
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
