"""Posts events: the exchange of localkn's HTTP client, on connections that are kept."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from urllib.parse import SplitResult, urlsplit

from localkn.httpclient import Answer, Streams, compose, exchange


class Client:
    """Posts, on connections that are kept; answers may be *limit_bytes* long."""

    def __init__(self, *, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._idle: dict[str, list[Streams]] = defaultdict(list)

    async def post(self, url: str, *, headers: Iterable[tuple[str, str]], body: bytes) -> Answer:
        """
        Post *body*; once more where a kept connection turns out to be broken.

        Raises:
            OSError: No answer was received. The caller sets the time limit.
        """
        parts = urlsplit(url)
        fields = {"host": parts.netloc, "content-length": str(len(body)), **dict(headers)}
        request = compose("POST", parts._replace(scheme="", netloc="").geturl() or "/", fields) + body
        idle = self._idle[f"{parts.scheme}://{parts.netloc}"]
        while True:
            kept = _usable(idle)
            streams = kept or await _connect(parts)
            answer = Answer()
            try:
                await exchange(streams, request, answer, limit_bytes=self._limit_bytes)
            except OSError:
                if kept is None:
                    raise
            else:
                return answer
            finally:
                if answer.complete and answer.lasting:
                    idle.append(streams)
                else:
                    streams[1].close()

    def close(self) -> None:
        """Close what is kept."""
        for idle in self._idle.values():
            for _, writer in idle:
                writer.close()


def _usable(idle: list[Streams]) -> Streams | None:
    while idle:
        reader, writer = idle.pop()
        if not reader.at_eof():
            return reader, writer
        writer.close()
    return None


async def _connect(url: SplitResult) -> Streams:
    secure = url.scheme == "https"
    return await asyncio.open_connection(url.hostname, url.port or (443 if secure else 80), ssl=secure or None)
