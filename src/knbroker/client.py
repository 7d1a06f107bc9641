"""Post events over kept-alive connections."""

from collections.abc import Iterable

import httpx

from chassis.wire.http_connection import Answer
from chassis.wire.transport import HttptoolsTransport

_HEAD_BYTES = 64 * 1024


class DeliveryClient:
    """
    Post events over kept-alive connections.

    A post whose kept connection breaks is repeated: receivers of events drop the duplicates.

    Args:
        limit_bytes: The longest body of an answer.
    """

    def __init__(self, *, limit_bytes: int) -> None:
        self._transport = HttptoolsTransport(max_answer_bytes=limit_bytes + _HEAD_BYTES, repeats=True)

    async def post(self, url: str, *, headers: Iterable[tuple[str, str]], body: bytes, timeout_s: float) -> Answer:
        """
        Post *body* and return the whole answer.

        Raises:
            httpx.TransportError: No complete answer arrived within *timeout_s*.
            httpx.InvalidURL: *url* is not a URL.
        """
        target = httpx.URL(url)
        fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        return await self._transport.post(target, [(b"host", target.netloc), *fields], body, timeout_s=timeout_s)

    @property
    def idle_connections(self) -> int:
        """The number of open connections that wait for an event."""
        return self._transport.idle

    async def aclose(self) -> None:
        """Close the kept connections."""
        await self._transport.aclose()
