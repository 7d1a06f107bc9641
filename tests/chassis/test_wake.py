"""Wake calls to functions at zero."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest

from chassis.wake import wake

pytestmark = pytest.mark.may_block


class Function(BaseHTTPRequestHandler):
    """Answers like a function that has just started, and records the requests."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(f"{self.command} {self.path} {self.headers['host']}")
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def function() -> Iterator[str]:
    """Serve a function; yield its host and port."""
    Function.asked.clear()
    with HTTPServer(("127.0.0.1", 0), Function) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()


def test_every_address_gets_a_request(function: str) -> None:
    """Each function gets a request to /livez, also if its address has a path."""
    for thread in wake(f"http://{function}/ http://{function}/path"):
        thread.join()
    assert Function.asked == [f"GET /livez {function}"] * 2


def test_a_failure_does_not_matter() -> None:
    """An unreachable or invalid address raises no error."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for thread in wake(f"http://127.0.0.1:{port} https://127.0.0.1:{port} http://[ nowhere"):
        thread.join()


@pytest.mark.parametrize("none", ["-", "", " "])
def test_no_address_wakes_nothing(none: str) -> None:
    """Without functions at zero, nothing is sent."""
    assert wake(none) == []
