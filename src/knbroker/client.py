"""Posts events: the exchange of localkn's HTTP client, on connections that are kept."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from urllib.parse import SplitResult, urlsplit

from chassis.wire.httpclient import Answer, Connection, compose


class Client:
    """Posts, on connections that are kept; answers may be *limit_bytes* long."""

    def __init__(self, *, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._idle: dict[str, list[Connection]] = defaultdict(list)

    async def post(self, url: str, *, headers: Iterable[tuple[str, str]], body: bytes) -> Answer:
        """
        Post *body*; again where a kept connection turns out to be broken.

        Raises:
            OSError: No answer was received. The caller sets the time limit.
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
                # An answer that began is the server's doing, and would be the same on any connection.
                if kept is None or answer.status:
                    raise
            else:
                return answer
            finally:
                if connection.is_reusable:
                    idle.append(connection)

    def close(self) -> None:
        """Close what is kept."""
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
