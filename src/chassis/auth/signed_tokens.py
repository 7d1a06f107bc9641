"""
Signed tokens (JWT) of an issuer, checked with the keys that it publishes.

PyJWT verifies the tokens. The guard fetches the keys every five minutes, and when a token names an unknown key, at most
every ten seconds. While the issuer is unavailable, or publishes something unusable, the guard keeps the known keys.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable
from typing import Any

import httpx
import jwt

from chassis.auth.bearer import bearer_token, refuse
from chassis.auth.settings import AuthSettings
from chassis.auth.shared_refresh import SharedRefresh
from chassis.wire.headers import RawHeaders
from chassis.wire.problems import NotReadyError
from chassis.wire.transport import HttptoolsTransport

log = logging.getLogger("chassis")

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
KEYS_AGE_S, UNKNOWN_KEY_PAUSE_S, NO_KEYS_PAUSE_S = 300.0, 10.0, 1.0
# The longest key set that is read, and the longest time that a fetch may take. Reading keys takes the event loop's time.
MAX_KEY_SET_BYTES = 1024 * 1024
MAX_KEYS = 100
FETCH_TIMEOUT_S = 2.0
# A request whose key is known waits this long for newer keys, so that a revoked key is refused after a pause in traffic.
NEWER_KEYS_WAIT_S = 0.1

Keys = dict[str | None, jwt.PyJWK]


class SignedTokenGuard:
    """
    Admits callers whose token is valid now and is signed by the issuer for the audience in *settings*.

    Args:
        settings: Issuer, audience, address of the keys, leeway.
        transport: Fetches the keys.
        clock: Monotonic seconds, for the age of the keys.
    """

    def __init__(
        self,
        settings: AuthSettings,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        transport = transport or HttptoolsTransport(max_answer_bytes=MAX_KEY_SET_BYTES)
        self._client = httpx.AsyncClient(transport=transport, timeout=FETCH_TIMEOUT_S)
        self._clock = clock
        self._keys: Keys = {}
        self._fetched = self._tried = float("-inf")
        self._fetching = SharedRefresh(self._fetch)

    async def admit(self, headers: RawHeaders, *, within_s: float) -> None:
        """Return when the bearer token is valid; see `Guard`."""
        token = bearer_token(headers)
        key = await self._find_key(_read_key_id(token), within_s=within_s)
        try:
            jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                leeway=self._settings.leeway_s,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.ExpiredSignatureError as error:
            raise refuse("the token has expired") from error
        except Exception as error:
            raise refuse("the token is not valid here") from error

    async def aclose(self) -> None:
        """Stop fetching keys and close the connections to the issuer."""
        await self._fetching.aclose()
        await self._client.aclose()

    async def _find_key(self, key_id: str | None, *, within_s: float) -> jwt.PyJWK:
        if self._is_fetch_due(key_id):
            self._fetching.begin()
        is_known = key_id in self._keys
        await self._fetching.wait(within_s=min(within_s, NEWER_KEYS_WAIT_S) if is_known else within_s)
        if not self._keys:
            raise NotReadyError("the issuer's keys are not available yet", retry_after_s=1.0)
        if key_id not in self._keys:
            raise refuse("the token's key is unknown")
        return self._keys[key_id]

    def _is_fetch_due(self, key_id: str | None) -> bool:
        """Tell whether the keys are old or lack *key_id*, and the last fetch began long enough ago."""
        now = self._clock()
        is_wanted = now >= self._fetched + KEYS_AGE_S or key_id not in self._keys
        return is_wanted and now >= self._tried + (UNKNOWN_KEY_PAUSE_S if self._keys else NO_KEYS_PAUSE_S)

    async def _fetch(self) -> None:
        self._tried = self._clock()
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                answer = await self._client.get(self._settings.jwks_url)
            keys = _read_answer(answer)
        except Exception as error:  # noqa: BLE001 - no answer of the issuer may take away the known keys
            log.warning("jwks_unavailable", extra={"reason": f"{type(error).__name__}: {error}".removesuffix(": ")})
            return
        self._keys = keys
        self._fetched = self._clock()


def _read_answer(answer: httpx.Response) -> Keys:
    # The guard follows no redirect, because the settings name the only address whose keys it trusts.
    if answer.status_code != httpx.codes.OK:
        raise ValueError(f"the issuer answers {answer.status_code}; AUTH_JWKS_URL must name the key set itself")
    return read_keys(answer.content)


def read_keys(body: bytes) -> Keys:
    """
    Return the usable keys of a key set (RFC 7517) by their ids; keys that cannot verify signatures are left out.

    Raises:
        ValueError: *body* is not JSON, or contains no usable key or more than MAX_KEYS.
        RecursionError: *body* is nested too deeply.
    """
    document = json.loads(body)
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise ValueError(f"no key set with at most {MAX_KEYS} keys")
    found = map(_read_key, entries)
    keys = {key.key_id: key for key in found if key is not None}
    if not keys:
        raise ValueError("no key set with a usable key")
    return keys


def _read_key(entry: Any) -> jwt.PyJWK | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("kid", ""), str) or entry.get("use", "sig") != "sig":
        return None
    try:
        return jwt.PyJWK(entry)
    except Exception:  # noqa: BLE001 - a malformed key must not take away the others
        return None


def _read_key_id(token: str) -> str | None:
    try:
        key_id: str | None = jwt.get_unverified_header(token).get("kid")
    except Exception as error:
        raise refuse("the token is not a signed token") from error
    return key_id
