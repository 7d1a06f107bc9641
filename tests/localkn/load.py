"""A load generator that needs little CPU: keep-alive HTTP/1.1 over asyncio streams, with every answer checked."""

import asyncio
import contextlib
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

REQUEST = b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n"


@dataclass
class Results:
    """The answers and failures that the callers saw."""

    answers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    started_at: float = field(default_factory=time.monotonic)

    def rate(self) -> float:
        return sum(self.answers.values()) / (time.monotonic() - self.started_at)


class Caller:
    """A connection that sends one request after another, and reopens when it closes between requests."""

    def __init__(self, port: int, host: str = "localhost") -> None:
        self._port, self._host = port, host
        self._writer: asyncio.StreamWriter | None = None

    async def get(self) -> dict[str, Any]:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(REQUEST % self._host.encode())
        head = await self._reader.readuntil(b"\r\n\r\n")
        fields = head.lower().split(b"\r\n")
        length = next(int(line.partition(b":")[2]) for line in fields if line.startswith(b"content-length:"))
        body = await self._reader.readexactly(length)
        if b"connection: close" in fields:
            self.close()
        if not head.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(head.partition(b"\r\n")[0].decode() + " " + body.decode()[:80])
        return json.loads(body)  # type: ignore[no-any-return]

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class Load:
    """Callers that send requests until the block ends, in a closed loop or at *rate* requests per second in total."""

    def __init__(self, port: int, callers: int, *, rate: float | None = None, host: str = "localhost") -> None:
        self.results = Results()
        self._pause = callers / rate if rate else 0.0
        self._callers = [Caller(port, host) for _ in range(callers)]
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Results:
        self._tasks = [asyncio.create_task(self._run(i, c)) for i, c in enumerate(self._callers)]
        return self.results

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, index: int, caller: Caller) -> None:
        due = time.monotonic() + self._pause * index / len(self._callers)
        with contextlib.closing(caller):
            while True:
                if self._pause:
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
                    due += self._pause
                try:
                    answer = await caller.get()
                    self.results.answers[answer["env"]["K_REVISION"]] += 1
                except (OSError, EOFError) as error:
                    self.results.failures.append(f"{time.monotonic() - self.results.started_at:.2f} {error!r}")
                    caller.close()
