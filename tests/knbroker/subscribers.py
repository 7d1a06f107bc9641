"""Subscribers inside the test process: a client that records posts and answers them from a script."""

import asyncio
from collections.abc import Callable, Iterable, Sequence

from chassis.wire.http_connection import Answer
from knbroker.client import DeliveryClient

NEEDED = {"specversion": "1.0", "id": "1", "source": "/s", "type": "a"}
Post = tuple[str, dict[str, str], bytes]


def answer(status: int = 202, body: bytes = b"", *lines: str) -> Answer:
    """Return an answer as the client returns it."""
    fields = [f"content-length: {len(body)}", *lines]
    headers = [(name.encode(), value.encode()) for name, _, value in (field.partition(": ") for field in fields)]
    return Answer(status, headers, body)


def event_answer(**attributes: str) -> Answer:
    """Return an answer that contains an event in binary mode."""
    return answer(200, b"{}", *(f"ce-{name}: {value}" for name, value in (NEEDED | attributes).items()))


class Subscribers(DeliveryClient):
    """Answer each post with the next step of *script*, and with 202 after its end."""

    def __init__(self, script: Sequence[Answer | Exception | Callable[[], Answer]] = ()) -> None:
        super().__init__(limit_bytes=1000)
        self.posts: list[Post] = []
        self.script = list(script)
        self.changed = asyncio.Event()

    async def post(self, url: str, *, headers: Iterable[tuple[str, str]], body: bytes, timeout_s: float) -> Answer:
        """Record the post and return the scripted answer."""
        self.posts.append((url, dict(headers), body))
        self.changed.set()
        said = self.script.pop(0) if self.script else answer()
        if isinstance(said, Exception):
            raise said
        return said if isinstance(said, Answer) else said()

    async def until(self, count: int) -> list[Post]:
        """Return the posts once there are *count* of them."""
        while len(self.posts) < count:
            self.changed.clear()
            await self.changed.wait()
        return self.posts
