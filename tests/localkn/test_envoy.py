"""The admin interface of Envoy, as the platform reads it."""

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import pytest

from localkn.envoy import EnvoyIngress
from localkn.ingress import IngressCluster, Picture
from localkn.processes import Processes
from localkn.state import PlatformDirectory

pytestmark = pytest.mark.anyio

LATENCIES = (
    b'{"stats": [{"histograms": {"supported_quantiles": [50, 95, 99], "computed_quantiles": [{"name": '
    b'"cluster.front-00001.upstream_rq_time", "values": [{"cumulative": 4}, {"cumulative": 8}, {"cumulative": 9}]}]}}]}'
)


@asynccontextmanager
async def ingress(folder: Path) -> AsyncIterator[EnvoyIngress]:
    """Yield an ingress whose Envoy is not running."""
    state = PlatformDirectory(folder)
    with state.held():
        async with Processes() as processes:
            yield EnvoyIngress(state, processes, port=1, certificate=None, changed=lambda: None)


@asynccontextmanager
async def admin(folder: Path, answer: bytes) -> AsyncIterator[None]:
    """Give *answer* to each connection at the admin socket."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_unix_server(talk, PlatformDirectory(folder).socket("admin"))
    try:
        yield
    finally:
        server.close()


async def test_latencies_come_from_the_admin_interface(tmp_path: Path):
    """The median and the 99th percentile of each revision are shown."""
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(LATENCIES), LATENCIES)
    async with ingress(tmp_path) as envoy, admin(tmp_path, answer):
        assert await envoy.latencies() == {"front-00001": {"p50_ms": 4, "p99_ms": 9}}


async def test_without_envoy_no_latency_is_known(tmp_path: Path):
    """While the platform stops, nothing listens at the admin socket, and `status` still answers."""
    async with ingress(tmp_path) as envoy:
        assert await envoy.latencies() == {}


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{", b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{"]
)
async def test_an_envoy_that_ends_while_it_answers_gives_no_latency(tmp_path: Path, answer: bytes):
    """If the answer breaks off or is not JSON, there are no figures."""
    async with ingress(tmp_path) as envoy, admin(tmp_path, answer):
        assert await envoy.latencies() == {}


async def test_a_full_disk_delays_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A later call writes the change into the room of a reserve, and the platform keeps running."""
    before, after = (Picture([IngressCluster(name, [])]) for name in ("front-00001", "front-00002"))
    async with ingress(tmp_path) as envoy:
        envoy.publish(before)
        envoy._process = cast("Any", object())
        with monkeypatch.context() as full:
            full.setattr(Path, "write_text", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
            envoy.publish(after)
        assert "front-00002" not in (tmp_path / "envoy/cds.json").read_text()
        assert not (tmp_path / "envoy/reserve").exists()
        envoy.publish(after)
        assert "front-00002" in (tmp_path / "envoy/cds.json").read_text()
        assert (tmp_path / "envoy/reserve").stat().st_size > 0


async def test_a_start_on_a_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without its first configuration, Envoy would serve nothing."""
    monkeypatch.setattr(Path, "write_text", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
    async with ingress(tmp_path) as envoy:
        with pytest.raises(OSError, match="No space"):
            envoy.publish(Picture())
