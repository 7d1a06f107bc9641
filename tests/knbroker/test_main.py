"""The broker as a process: configured by its environment, controlled over its socket, ended by SIGTERM."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from kubeyaml.eventing import DeliverySpec, Routing, Trigger
from localkn import control
from localkn.errors import PlatformError
from localkn.processes import free_port
from tests.knbroker.subscribers import NEEDED

HEADERS = {f"ce-{name}": value for name, value in NEEDED.items()}


@pytest.fixture
def port() -> int:
    """Return the port on which the broker listens."""
    return free_port()


@pytest.fixture
def broker(tmp_path: Path, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a broker whose only Trigger leads to a closed port."""
    nowhere = Trigger("ns/t", "ns/b", f"http://127.0.0.1:{free_port()}", delivery=DeliverySpec(0))
    variables = {
        "ROUTING": msgspec.json.encode(Routing(("ns/b",), [nowhere])).decode(),
        "QUEUE": str(tmp_path / "q.db"),
        "CONTROL": str(tmp_path / "b.sock"),
        "PORT": str(port),
        "MAX_BODY_BYTES": "100",
    }
    with subprocess.Popen([sys.executable, "-m", "knbroker"], env={**os.environ, **variables}) as process:
        yield process
        process.kill()


@pytest.mark.may_block
def test_the_process_serves_redrives_and_stops(broker: "subprocess.Popen[bytes]", port: int, tmp_path: Path) -> None:
    """The process accepts an event, keeps the dead letter, redrives it on request, and ends at SIGTERM."""
    url, socket, deadline = f"http://127.0.0.1:{port}", tmp_path / "b.sock", time.monotonic() + 30
    while True:
        try:
            if httpx.get(f"{url}/healthz").status_code == 200:
                break
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert httpx.post(f"{url}/ns/b", headers=HEADERS, content=b"1").status_code == 202
    assert httpx.post(f"{url}/ns/b", headers=HEADERS, content=b"1" * 101).status_code == 413
    for attempt in (1, 2):
        while (figures := control.call(socket, "events"))["triggers"]["ns/t"]["failed"] < attempt or figures["waiting"]:
            assert time.monotonic() < deadline
        (letter,) = figures["dead_letters"]
        assert letter["failure"]["reason"].startswith("dispatch error: ConnectError")
        assert control.call(socket, "redrive") == {"redriven": 1, "unknown": []}
    broker.send_signal(signal.SIGTERM)
    assert broker.wait(timeout=20) in {0, -signal.SIGTERM}
    with pytest.raises(PlatformError):
        control.call(socket, "events")
