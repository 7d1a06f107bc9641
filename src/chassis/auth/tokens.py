"""
Bearer tokens from a file, such as a mounted Secret.

The file is read again at most once a second, so that tokens can be added and revoked without a restart. To rotate a
token, add the new one to the file, switch the callers to it, and remove the old one.
"""

import asyncio
import hashlib
import hmac
import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from chassis.auth.bearer import bearer_token, refuse
from chassis.auth.shared_refresh import SharedRefresh
from chassis.environment import SettingsError
from chassis.watched_file import WatchedFile, read_text
from chassis.wire.headers import RawHeaders
from chassis.wire.problems import NotReadyError

# Long for a file system that works, short beside a request's time budget.
MAX_READ_S = 0.25

_COMMENT = re.compile(r"(?:^|\s)#.*")
_TOKEN = re.compile(r"[\x21\x22\x24-\x7e]+")

log = logging.getLogger("chassis")


@dataclass(frozen=True)
class Token:
    """
    One line of a token file.

    Attributes:
        text: The token, as this function sends it to other functions.
        digest: Its SHA-256, which a caller's token is compared with: all digests have one length.
        expires: Seconds since the epoch; None for never.
    """

    text: str
    digest: bytes
    expires: float | None


@dataclass(frozen=True)
class TokenLines:
    """
    The content of a token file.

    Attributes:
        tokens: The tokens of the valid lines, unless an invalid line begins with the same token.
        faults: One message for each invalid line, with its number; no message contains any part of a token.
    """

    tokens: tuple[Token, ...] = ()
    faults: tuple[str, ...] = ()


class TokenFile:
    """
    The tokens in a file.

    Each line holds a token of visible ASCII characters without `#`, and after a space its expiry (ISO 8601) if it has
    one. A `#` at the beginning of a line or after a space begins a comment.

    A file that cannot be read leaves the known tokens valid, because a Secret that is being replaced must not lock
    callers out. An invalid line revokes its token and is logged; the other lines count.

    Args:
        path: The file, which may not exist yet.
        clock: Seconds since the epoch.
        max_read_s: A request waits this long for the file, and then goes on with the known tokens.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time, max_read_s: float = MAX_READ_S) -> None:
        self._path = path
        self._clock = clock
        self._max_read_s = max_read_s
        self._file: WatchedFile[TokenLines] = WatchedFile(path, parse_tokens, unread=TokenLines(), clock=clock)
        self._reading = SharedRefresh(lambda: asyncio.to_thread(self._look))

    @property
    def was_read(self) -> bool:
        """Whether the file could be read at least once."""
        return self._file.was_read

    def check(self) -> "TokenFile":
        """
        Return this file if every line of it is valid, or if it does not exist yet. Blocks.

        Raises:
            SettingsError: with every invalid line.
        """
        try:
            faults = parse_tokens(read_text(self._path)).faults
        except FileNotFoundError:
            faults = ()
        except (OSError, ValueError) as error:
            faults = (f"cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}",)
        if faults:
            raise SettingsError([f"{self._path}: {fault}" for fault in faults])
        return self

    async def tokens(self) -> tuple[Token, ...]:
        """Return the tokens that are in the file now and have not expired."""
        if self._file.due:
            self._reading.begin()
        await self._reading.wait(within_s=self._max_read_s)
        now = self._clock()
        return tuple(token for token in self._file.content.tokens if token.expires is None or token.expires > now)

    async def first(self) -> str | None:
        """Return the token to send to other functions: the first that has not expired."""
        return next((token.text for token in await self.tokens()), None)

    async def aclose(self) -> None:
        """Stop waiting for the file."""
        await self._reading.aclose()

    def _look(self) -> None:
        if self._file.look() and self._file.content.faults:
            log.error("token_file_invalid", extra={"path": str(self._path), "faults": self._file.content.faults})


def parse_tokens(text: str) -> TokenLines:
    """Return the tokens and the faults of a token file; see `TokenFile`."""
    tokens, faults, revoked = [], [], set()
    # `splitlines` would also split at a form feed, which would make two tokens of one.
    for number, line in enumerate(text.split("\n"), 1):
        words = _COMMENT.sub("", line).split()
        if not words:
            continue
        try:
            tokens.append(_parse_line(words))
        except ValueError as error:
            faults.append(f"line {number}: {error}")
            revoked.add(words[0])
    return TokenLines(tuple(token for token in tokens if token.text not in revoked), tuple(faults))


def _parse_line(words: Sequence[str]) -> Token:
    text = words[0]
    if "#" in text:
        raise ValueError("a token cannot contain #; put a space before a comment")
    if not _TOKEN.fullmatch(text):
        raise ValueError("a token consists of visible ASCII characters")
    return Token(text, _digest(text), _parse_expiry(words[1:]))


def _parse_expiry(words: Sequence[str]) -> float | None:
    if not words:
        return None
    try:
        moment = datetime.fromisoformat(" ".join(words))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        # The words may be part of a token with a space in it, so the message does not repeat them.
        raise ValueError("the expiry after the token is not an ISO 8601 time such as 2027-01-01T00:00:00Z") from None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


class TokenGuard:
    """
    Admits callers with a token of the file.

    The guard compares every token in constant time, so that the time of a refusal tells nothing about the tokens.
    """

    def __init__(self, file: TokenFile) -> None:
        self._file = file

    async def admit(self, headers: RawHeaders, *, within_s: float) -> None:
        """Return when the bearer token is one of the file's; see `Guard`."""
        digest = _digest(bearer_token(headers))
        tokens = await self._file.tokens()
        if not self._file.was_read:
            raise NotReadyError("the token file cannot be read yet", retry_after_s=1.0)
        matches = [hmac.compare_digest(digest, token.digest) for token in tokens]
        if not any(matches):
            raise refuse("the token is unknown, expired or revoked")

    async def aclose(self) -> None:
        """Stop reading the file."""
        await self._file.aclose()
