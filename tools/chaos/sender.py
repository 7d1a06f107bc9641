"""Sends events to the broker of a pipeline."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

import httpx

from knbroker.client import DeliveryClient

_TIMEOUT_S = 10.0
_PAUSE_S = 0.05


class PostableEvent(Protocol):
    """An event to post."""

    def headers(self) -> list[tuple[str, str]]:
        """Return the attributes as headers of a CloudEvent in binary mode."""
        ...

    def body(self) -> bytes:
        """Return the data."""
        ...


class Sender:
    """
    Posts events to the broker, and retries until the broker accepts them.

    Attributes:
        accepted: Number of accepted posts.
        refused: Number of failed posts, each of which was retried.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = DeliveryClient(limit_bytes=2**20)
        self.accepted = self.refused = 0

    async def send(self, event: PostableEvent) -> None:
        """
        Post *event*, and retry until the broker accepts it.

        Raises:
            ValueError: The broker rejects the event as malformed.
        """
        while not await self._posted(event):
            self.refused += 1
            await asyncio.sleep(_PAUSE_S)
        self.accepted += 1

    async def send_all(self, events: Sequence[PostableEvent], *, senders: int) -> None:
        """Post *events* with *senders* concurrent posts."""
        left = iter(events)

        async def work() -> None:
            for event in left:
                await self.send(event)

        async with asyncio.TaskGroup() as group:
            for _ in range(senders):
                group.create_task(work())

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _posted(self, event: PostableEvent) -> bool:
        try:
            answer = await self._client.post(
                self._url, headers=event.headers(), body=event.body(), timeout_s=_TIMEOUT_S
            )
        except httpx.TransportError:
            return False
        if 400 <= answer.status < 500:
            raise ValueError(answer.body.decode())
        return answer.status == 202
