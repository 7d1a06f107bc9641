"""The sink for what nobody could take, as the process its Service runs."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.knative.objects import KNATIVE, container, overlay, services
from tests.localkn.running import eventually
from tests.running import take_port

pytestmark = pytest.mark.may_block

PROGRAM = KNATIVE / "components/eventing/dead_letters.py"
LETTER = {"ce-specversion": "1.0", "ce-id": "1", "ce-type": "t", "ce-source": "/s", "ce-knativeerrorcode": "422",
          "content-type": "application/json"}  # fmt: skip


@pytest.fixture
def sink() -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Where it listens, and the process; it ends well when it is told to."""
    port = take_port()
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM)], env={**os.environ, "PORT": str(port)}, stdout=subprocess.PIPE, text=True
    )
    url = f"http://127.0.0.1:{port}"
    eventually(lambda: _answers(url))
    yield url, process
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 0
    if process.stdout:
        process.stdout.close()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def line(process: "subprocess.Popen[str]") -> dict[str, object]:
    assert process.stdout
    return json.loads(process.stdout.readline())  # type: ignore[no-any-return]


def test_a_letter_is_a_line(sink):
    """Attributes, who refused it and why, and the data; accepted with nothing in the answer."""
    url, process = sink
    answer = httpx.post(url, json={"user_id": "u"}, headers=LETTER)
    assert (answer.status_code, answer.content) == (202, b"")
    assert line(process) == {
        "event": "dead_letter",
        "attributes": {"specversion": "1.0", "id": "1", "type": "t", "source": "/s", "knativeerrorcode": "422",
                       "datacontenttype": "application/json"},
        "data": {"user_id": "u"},
    }  # fmt: skip


def test_what_is_no_json_is_kept_all_the_same(sink):
    """In base64, however it came: with its length, or in chunks; nothing at all is kept as nothing."""
    url, process = sink
    httpx.post(url, content=b"\xff", headers=LETTER)
    assert line(process)["data_base64"] == "/w=="
    httpx.post(url, content=iter([b'{"a":', b"1}"]), headers=LETTER)
    assert line(process)["data"] == {"a": 1}
    httpx.post(url, headers=LETTER)
    assert line(process)["data"] is None


@pytest.mark.parametrize("framing", ["Content-Length: 2000000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\nffffff\r\n"])
def test_what_is_too_long_is_refused(sink, framing):
    """As soon as that is known."""
    url, _ = sink
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
        connection.sendall(f"POST / HTTP/1.1\r\nHost: x\r\n{framing}".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_its_service_runs_this_program():
    """The command, the file's place, and the probes it answers."""
    service = services(overlay("dev"))["dead-letters"]
    found = container(service)
    (mounted,) = found["volumeMounts"]
    assert [*found["command"], *found["args"]] == ["python", f"{mounted['mountPath']}/{PROGRAM.name}"]
    (content,) = [
        b for b in overlay("dev") if b["metadata"]["name"].startswith("dead-letters-") and b["kind"] == "ConfigMap"
    ]
    assert content["data"] == {PROGRAM.name: Path(PROGRAM).read_text()}
