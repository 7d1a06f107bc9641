"""Post events over kept-alive connections."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from urllib.parse import SplitResult, urlsplit

from chassis.wire.httpclient import Answer, Connection, compose


class Client:
    """Post over kept-alive connections; the body of an answer may have *limit_bytes*."""

    def __init__(self, *, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._idle: dict[str, list[Connection]] = defaultdict(list)

    async def post(self, url: str, *, headers: Iterable[tuple[str, str]], body: bytes) -> Answer:
        """
        Post *body*. If a kept connection is broken, repeat the request on another one.

        Raises:
            OSError: No complete answer arrived. The caller sets the time limit.
        """
        parts = urlsplit(url)
        fields = [("host", parts.netloc), ("content-length", str(len(body))), *headers]
        request = compose("POST", parts._replace(scheme="", netloc="").geturl() or "/", fields) + body
        idle = self._idle[f"{parts.scheme}://{parts.netloc}"]
        while True:
            kept = _usable(idle)
            connection = kept or await _connect(parts)
            answer = Answer()
            try:
                await connection.exchange(request, answer, limit_bytes=self._limit_bytes)
            except OSError:
                # If the answer has begun, the server failed and not the connection, so another connection does not help.
                if kept is None or answer.status:
                    raise
            else:
                return answer
            finally:
                if connection.is_reusable:
                    idle.append(connection)

    def close(self) -> None:
        """Close the kept connections."""
        for idle in self._idle.values():
            for connection in idle:
                connection.close()


def _usable(idle: list[Connection]) -> Connection | None:
    while idle:
        connection = idle.pop()
        if connection.is_reusable:
            return connection
    return None


async def _connect(url: SplitResult) -> Connection:
    secure = url.scheme == "https"
    host, port = url.hostname or "", url.port or (443 if secure else 80)
    _, connection = await asyncio.get_running_loop().create_connection(Connection, host, port, ssl=secure or None)
    return connection
