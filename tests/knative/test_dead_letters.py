"""The dead-letter sink as the process that its Service runs."""

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
from tests.running import CLIENT, killed_at_the_end, take_port
from tests.waiting import LIMIT_S, eventually

pytestmark = pytest.mark.may_block

PROGRAM = KNATIVE / "components/eventing/dead_letters.py"
LETTER = {"ce-specversion": "1.0", "ce-id": "1", "ce-type": "t", "ce-source": "/s", "ce-knativeerrorcode": "422",
          "content-type": "application/json"}  # fmt: skip


@pytest.fixture
def sink() -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Yield the URL and the process of a sink, which must end with status 0 at SIGTERM."""
    port = take_port()
    started = subprocess.Popen(
        [sys.executable, str(PROGRAM)], env={**os.environ, "PORT": str(port)}, stdout=subprocess.PIPE, text=True
    )
    url = f"http://127.0.0.1:{port}"
    with killed_at_the_end(started) as process:
        eventually(lambda: _answers(url))
        yield url, process
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0


def _answers(url: str) -> bool:
    try:
        return CLIENT.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def line(process: "subprocess.Popen[str]") -> dict[str, object]:
    assert process.stdout
    return json.loads(process.stdout.readline())  # type: ignore[no-any-return]


def test_an_event_becomes_a_line(sink):
    """The line holds the attributes, the failure and the data; the answer is an empty 202."""
    url, process = sink
    answer = CLIENT.post(url, json={"user_id": "u"}, headers=LETTER)
    assert (answer.status_code, answer.content) == (202, b"")
    assert line(process) == {
        "event": "dead_letter",
        "attributes": {"specversion": "1.0", "id": "1", "type": "t", "source": "/s", "knativeerrorcode": "422",
                       "datacontenttype": "application/json"},
        "data": {"user_id": "u"},
    }  # fmt: skip


def test_data_that_is_not_json_is_kept(sink):
    """Data that is not JSON is kept in base64, with and without chunks, and missing data becomes null."""
    url, process = sink
    CLIENT.post(url, content=b"\xff", headers=LETTER)
    assert line(process)["data_base64"] == "/w=="
    CLIENT.post(url, content=iter([b'{"a":', b"1}"]), headers=LETTER)
    assert line(process)["data"] == {"a": 1}
    CLIENT.post(url, headers=LETTER)
    assert line(process)["data"] is None


@pytest.mark.parametrize("framing", ["Content-Length: 2000000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\nffffff\r\n"])
def test_an_oversized_event_is_refused(sink, framing):
    """The sink answers 413 as soon as the length is known."""
    url, _ = sink
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
        connection.sendall(f"POST / HTTP/1.1\r\nHost: x\r\n{framing}".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_the_service_runs_this_program():
    """The Service has the command that runs the mounted file, and the ConfigMap contains the file."""
    service = services(overlay("dev"))["dead-letters"]
    found = container(service)
    (mounted,) = found["volumeMounts"]
    assert [*found["command"], *found["args"]] == ["python", f"{mounted['mountPath']}/{PROGRAM.name}"]
    (content,) = [
        b for b in overlay("dev") if b["metadata"]["name"].startswith("dead-letters-") and b["kind"] == "ConfigMap"
    ]
    assert content["data"] == {PROGRAM.name: Path(PROGRAM).read_text()}
