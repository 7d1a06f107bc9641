"""
Bearer tokens from a file, such as a mounted Secret.

The file is looked at again at most once a second, so tokens are added and revoked without a restart. To rotate: add
the new token to the file, move the callers over, remove the old one.
"""

import asyncio
import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from chassis.auth.bearer import bearer_token, refuse
from chassis.watched_file import WatchedFile
from chassis.wire.headers import RawHeaders
from chassis.wire.problems import NotReadyError


@dataclass(frozen=True)
class Token:
    """
    One line of a token file.

    Attributes:
        text: The token, as a caller of others sends it.
        digest: Its SHA-256, as callers of ours are compared with: digests have one length.
        expires: Seconds since the epoch; None for never.
    """

    text: str
    digest: bytes
    expires: float | None


class TokenFile:
    """
    The tokens in a file: one a line, with an expiry (ISO 8601) after it where there is one; `#` begins a comment.

    A file that cannot be read leaves the tokens known before: a Secret being exchanged must lock nobody out.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._file: WatchedFile[tuple[Token, ...]] = WatchedFile(path, _parse, unread=(), clock=clock)

    @property
    def was_read(self) -> bool:
        """Whether the file could be read at least once."""
        return self._file.was_read

    async def tokens(self) -> tuple[Token, ...]:
        """Return what is in the file now, expired ones left out."""
        if self._file.due:
            await asyncio.to_thread(self._file.look)
        now = self._clock()
        return tuple(token for token in self._file.content if token.expires is None or token.expires > now)

    async def first(self) -> str | None:
        """Return the token to send to others: the first that has not expired."""
        return next((token.text for token in await self.tokens()), None)


def _parse(text: str) -> tuple[Token, ...]:
    tokens = []
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if words:
            tokens.append(Token(words[0], _digest(words[0]), _moment(words[1:])))
    return tuple(tokens)


def _moment(words: list[str]) -> float | None:
    if not words:
        return None
    moment = datetime.fromisoformat(" ".join(words))
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


class TokenGuard:
    """
    Admits callers with a token of the file.

    Every token is compared, and in constant time: how long a refusal takes tells nothing about the tokens.
    """

    def __init__(self, file: TokenFile) -> None:
        self._file = file

    async def admit(self, headers: RawHeaders) -> None:
        """Return when the bearer token is one of the file's; see `Guard`."""
        digest = _digest(bearer_token(headers))
        tokens = await self._file.tokens()
        if not self._file.was_read:
            raise NotReadyError("the tokens to compare with cannot be read", retry_after_s=1.0)
        matches = [hmac.compare_digest(digest, token.digest) for token in tokens]
        if not any(matches):
            raise refuse("the token is unknown, expired or revoked")

    async def aclose(self) -> None:
        """Nothing is held."""
