"""Subscribers in this process: a client that answers by itself and remembers what it was asked to post."""

import asyncio
from collections.abc import Callable, Iterable, Sequence

from chassis.wire.transport import Answer
from knbroker.client import Client

NEEDED = {"specversion": "1.0", "id": "1", "source": "/s", "type": "a"}
Post = tuple[str, dict[str, str], bytes]


def answer(status: int = 202, body: bytes = b"", *lines: str) -> Answer:
    """An answer as it would have come over the wire."""
    fields = [f"content-length: {len(body)}", *lines]
    headers = [(name.encode(), value.encode()) for name, _, value in (field.partition(": ") for field in fields)]
    return Answer(status, headers, body)


def event_answer(**attributes: str) -> Answer:
    """A reply: an event in binary mode."""
    return answer(200, b"{}", *(f"ce-{name}: {value}" for name, value in (NEEDED | attributes).items()))


class Subscribers(Client):
    """Answers with what *script* makes of each post, in turn; after its end with 202."""

    def __init__(self, script: Sequence[Answer | Exception | Callable[[], Answer]] = ()) -> None:
        super().__init__(limit_bytes=1000)
        self.posts: list[Post] = []
        self.script = list(script)
        self.changed = asyncio.Event()

    async def post(self, url: str, *, headers: Iterable[tuple[str, str]], body: bytes, timeout_s: float) -> Answer:
        """Note the post and answer as told."""
        self.posts.append((url, dict(headers), body))
        self.changed.set()
        said = self.script.pop(0) if self.script else answer()
        if isinstance(said, Exception):
            raise said
        return said if isinstance(said, Answer) else said()

    async def until(self, count: int) -> list[Post]:
        """Return the posts once there are so many."""
        while len(self.posts) < count:
            self.changed.clear()
            await self.changed.wait()
        return self.posts
