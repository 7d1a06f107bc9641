"""Token files and key sets in forms that editors and servers produce: byte order marks, CRLF, form feeds, redirects."""

import asyncio
import logging
from pathlib import Path

import httpx
import pytest

from chassis.auth.settings import AuthSettings
from chassis.auth.signed_tokens import SignedTokenGuard
from chassis.auth.tokens import TokenFile, parse_tokens
from chassis.environment import SettingsError
from chassis.wire.problems import NotReadyError
from functions.rank_items.availability import parse_item_ids
from tests.waiting import LIMIT_S

pytestmark = pytest.mark.may_block

SETTINGS = AuthSettings("jwt", Path("-"), "https://issuer", "recsys", "https://issuer/keys", 30.0)
# {"alg":"RS256","kid":"one"} . {} . no signature
TOKEN = b"eyJhbGciOiJSUzI1NiIsImtpZCI6Im9uZSJ9.e30.e30"


@pytest.mark.parametrize("text", [b"\xef\xbb\xbfone\r\ntwo\r\n", b"\xef\xbb\xbf# of the shop\none\ntwo", b"one\rtwo"])
async def test_a_token_file_may_come_from_any_editor(tmp_path: Path, text: bytes) -> None:
    """The first token does not include a byte order mark, and any line end ends a token."""
    path = tmp_path / "tokens"
    path.write_bytes(text)
    file = TokenFile(path).check()
    assert [token.text for token in await file.tokens()] == ["one", "two"]
    await file.aclose()


@pytest.mark.parametrize("separator", ["\f", "\v", "\x1c", "\x85", "\u2028"])
def test_a_token_with_a_separator_is_refused(separator: str) -> None:
    """A token that contains a page break or another separator becomes no shorter tokens."""
    lines = parse_tokens(f"s3cr{separator}et\nother")
    assert [token.text for token in lines.tokens] == ["other"]
    assert [fault.partition(":")[0] for fault in lines.faults] == ["line 1"]


def test_a_token_file_in_utf_16_is_refused(tmp_path: Path) -> None:
    """The start names the file and the encoding that it must have."""
    path = tmp_path / "tokens"
    path.write_bytes("one\n".encode("utf-16"))
    with pytest.raises(SettingsError, match="not UTF-8"):
        TokenFile(path).check()


def test_an_item_id_may_contain_a_line_separator() -> None:
    """Only a line feed ends an id in the list of unavailable items."""
    assert parse_item_ids("a\u2028b\nc") == ["a\u2028b", "c"]


@pytest.mark.parametrize("status", [204, 301, 302, 307, 308, 404, 500])
async def test_a_redirected_key_set_is_not_followed(caplog: pytest.LogCaptureFixture, status: int) -> None:
    """The guard asks only the configured address, admits no caller, and logs the status of the issuer's answer."""
    asked: list[str] = []

    def publish(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(status, headers={"location": "https://elsewhere/keys"})

    guard = SignedTokenGuard(SETTINGS, transport=httpx.MockTransport(publish))
    with caplog.at_level(logging.WARNING), pytest.raises(NotReadyError):
        await asyncio.wait_for(guard.admit([(b"authorization", b"Bearer " + TOKEN)], within_s=LIMIT_S), LIMIT_S)
    await guard.aclose()
    assert asked == [SETTINGS.jwks_url]
    (record,) = [record for record in caplog.records if record.msg == "jwks_unavailable"]
    assert f"the issuer answers {status};" in record.__dict__["reason"]
