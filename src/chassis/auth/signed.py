"""
Signed tokens (JWT) of an issuer, checked with the keys it publishes.

Verification is PyJWT's. Keys are fetched when a token names one that is not known, at most every ten seconds, and
anew every five minutes; while the issuer is away the keys known before go on working.
"""

import asyncio
import logging
import time
from collections.abc import Callable

import httpx
import jwt

from chassis.auth.bearer import bearer_token, refuse
from chassis.auth.settings import AuthSettings
from chassis.wire.headers import RawHeaders
from chassis.wire.problems import NotReadyError
from chassis.wire.transport import HttptoolsTransport

log = logging.getLogger("chassis")

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
KEYS_AGE_S, UNKNOWN_KEY_PAUSE_S = 300.0, 10.0
_FETCH_TIMEOUT_S = 2.0


class SignedTokenGuard:
    """
    Admits callers with a token that *settings*' issuer signed for its audience and that is valid now.

    Args:
        settings: Issuer, audience, place of the keys, leeway.
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
        self._client = httpx.AsyncClient(transport=transport or HttptoolsTransport(), timeout=_FETCH_TIMEOUT_S)
        self._clock = clock
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._fetched = self._tried = float("-inf")
        self._fetching = asyncio.Lock()

    async def admit(self, headers: RawHeaders) -> None:
        """Return when the bearer token is valid; see `Guard`."""
        token = bearer_token(headers)
        try:
            key = await self._key(jwt.get_unverified_header(token).get("kid"))
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
        except jwt.PyJWTError as error:
            raise refuse("the token is not valid here") from error

    async def aclose(self) -> None:
        """Close the way to the issuer."""
        await self._client.aclose()

    async def _key(self, key_id: str | None) -> jwt.PyJWK:
        if self._is_stale(key_id):
            async with self._fetching:
                if self._is_stale(key_id):
                    await self._fetch()
        if not self._keys:
            raise NotReadyError("the issuer's keys cannot be had", retry_after_s=1.0)
        if key_id not in self._keys:
            raise refuse("the token's key is unknown")
        return self._keys[key_id]

    def _is_stale(self, key_id: str | None) -> bool:
        """Tell whether to fetch: the keys are old or the wanted one is unknown, and the last try is a while ago."""
        now = self._clock()
        wanted = now >= self._fetched + KEYS_AGE_S or key_id not in self._keys
        pause_s = UNKNOWN_KEY_PAUSE_S if self._keys else 1.0
        return wanted and now >= self._tried + pause_s

    async def _fetch(self) -> None:
        self._tried = self._clock()
        try:
            answer = await self._client.get(self._settings.jwks_url)
            answer.raise_for_status()
            keys = jwt.PyJWKSet.from_dict(answer.json())
        except (httpx.HTTPError, jwt.PyJWTError, ValueError) as error:
            log.warning("jwks_unavailable", extra={"reason": type(error).__name__})
            return
        self._keys = {key.key_id: key for key in keys.keys}
        self._fetched = self._clock()
