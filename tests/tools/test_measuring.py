"""The programs that load, disturb and measure a pipeline end with an error if they cannot do so."""

import asyncio
import random
import signal
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tools.bench import redis_server
from tools.bench.closed_loop import run_callers
from tools.chaos import kills


async def test_callers_without_any_answer_end_with_an_error() -> None:
    """A server that closes every connection during the warm-up leaves nothing to count or to wait for."""

    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(close, "127.0.0.1", 0) as server, asyncio.timeout(10):
        with pytest.raises(ConnectionError, match="closed every connection before an answer was counted"):
            await run_callers(server.sockets[0].getsockname()[1], callers=2, seconds=0.2, warm_up_share=0.5)


class Pipeline:
    """Has a broker, an instance and Envoy; the first kill finds that its victim has exited."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.killed: list[int] = []
        self.fault: Exception | None = None
        monkeypatch.setattr(kills, "_KILL_AFTER_S", (0.001, 0.002))
        monkeypatch.setattr("os.kill", self.kill)

    def kill(self, pid: int, number: int) -> None:
        assert number == signal.SIGKILL
        self.killed.append(pid)
        if len(self.killed) == 1:
            raise ProcessLookupError

    def status(self) -> dict[str, Any]:
        if self.fault:
            raise self.fault
        service = {"revisions": [{"instances": [{"pid": 7, "state": "ready"}]}]}
        return {"built_in": {"broker-ingress": service}, "services": {"extract-features": service}}

    def processes(self) -> dict[str, Any]:
        return {"localkn": SimpleNamespace(pid=9), "envoy": SimpleNamespace(pid=8)}


async def kill_often(pipeline: Any, counted: Counter[str], *, least: int) -> None:
    async with kills.killing(pipeline, counted, random.Random(1)), asyncio.timeout(10):
        while counted.total() < least:
            await asyncio.sleep(0.001)
        raise RuntimeError("the block failed")


async def test_killing_goes_on_after_a_victim_that_has_ended_and_ends_with_the_block(monkeypatch) -> None:
    """An instance that has exited is not counted, and no instance is killed after a block that failed."""
    pipeline, counted = Pipeline(monkeypatch), Counter[str]()
    with pytest.raises(RuntimeError, match="the block failed"):
        await kill_often(pipeline, counted, least=20)
    killed = len(pipeline.killed)
    assert (set(pipeline.killed), set(counted)) == ({7, 8}, {"broker-ingress", "extract-features", "envoy"})
    assert killed == counted.total() + 1
    await asyncio.sleep(0.02)
    assert len(pipeline.killed) == killed


async def test_an_error_of_the_killing_is_not_swallowed(monkeypatch) -> None:
    """Without kills, a run that loses nothing proves nothing."""
    pipeline: Any = Pipeline(monkeypatch)
    pipeline.fault = OSError("nothing runs")
    with pytest.raises(OSError, match="nothing runs"):
        async with kills.killing(pipeline, Counter[str](), random.Random(1)):
            await asyncio.sleep(0.1)


@pytest.mark.may_block
def test_a_redis_server_that_ends_at_once_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has the status; nothing waits for a server that has ended."""
    monkeypatch.setattr(redis_server, "PROGRAM", "false")
    with (
        pytest.raises(RuntimeError, match="redis-server on port [0-9]+ ended with status 1"),
        redis_server.redis_running(tmp_path),
    ):
        pass
