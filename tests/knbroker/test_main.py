"""The broker as a process: configured by its environment, controlled over its socket, ended by SIGTERM."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from knbroker.__main__ import main
from kubeyaml.eventing import DeliverySpec, Routing, Trigger
from localkn import control
from localkn.errors import PlatformError
from localkn.processes import free_port
from tests.knbroker.subscribers import NEEDED
from tests.running import CLIENT, killed_at_the_end
from tests.waiting import LIMIT_S, eventually

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
    command = [sys.executable, "-m", "knbroker"]
    with killed_at_the_end(subprocess.Popen(command, env={**os.environ, **variables})) as process:
        yield process


def answers(url: str) -> bool:
    """Tell whether *url* answers with 200."""
    with contextlib.suppress(httpx.TransportError):
        return CLIENT.get(url).status_code == 200
    return False


def has_failed(figures: dict[str, Any], times: int) -> bool:
    """Tell whether all deliveries have ended, *times* or more of them in failure."""
    return figures["triggers"]["ns/t"]["failed"] >= times and not figures["waiting"]


@pytest.mark.may_block
def test_the_process_serves_redrives_and_stops(broker: "subprocess.Popen[bytes]", port: int, tmp_path: Path) -> None:
    """The process accepts an event, keeps the dead letter, redrives it on request, and ends at SIGTERM."""
    url, socket = f"http://127.0.0.1:{port}", tmp_path / "b.sock"
    eventually(lambda: answers(f"{url}/healthz"))
    assert CLIENT.post(f"{url}/ns/b", headers=HEADERS, content=b"1").status_code == 202
    assert CLIENT.post(f"{url}/ns/b", headers=HEADERS, content=b"1" * 101).status_code == 413
    for attempt in (1, 2):
        eventually(lambda: has_failed(control.call(socket, "events"), attempt))  # noqa: B023 - runs within the turn
        (letter,) = control.call(socket, "events")["dead_letters"]
        assert letter["failure"]["reason"].startswith("dispatch error: ConnectError")
        assert control.call(socket, "redrive") == {"redriven": 1, "unknown": []}
    broker.send_signal(signal.SIGTERM)
    assert broker.wait(LIMIT_S) in {0, -signal.SIGTERM}
    with pytest.raises(PlatformError):
        control.call(socket, "events")


def test_a_damaged_queue_is_named(tmp_path: Path) -> None:
    """The process ends with one sentence, which `up` shows, and leaves the file as it is."""
    (tmp_path / "q.db").write_bytes(b"no database" * 1000)
    routing = msgspec.json.encode(Routing(("ns/b",), [])).decode()
    with pytest.raises(SystemExit, match=r"q\.db: the queue of events cannot be opened: file is not a database"):
        main({"ROUTING": routing, "QUEUE": str(tmp_path / "q.db"), "CONTROL": str(tmp_path / "b.sock"), "PORT": "0"})
    assert (tmp_path / "q.db").read_bytes() == b"no database" * 1000
