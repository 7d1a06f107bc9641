"""Wake calls to functions at zero."""

import socket
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import ClassVar

import pytest

from chassis.wake import wake
from tests.http_server import HttpHandler, HttpServer

pytestmark = pytest.mark.may_block


class Function(HttpHandler):
    """Answers like a function that has just started, and records the requests."""

    asked: ClassVar[list[str]] = []

    def get(self) -> None:
        self.asked.append(f"{self.command} {self.path} {self.headers['host']}")
        self.answer(200)


@pytest.fixture
def function() -> Iterator[str]:
    """Serve a function; yield its host and port."""
    Function.asked.clear()
    with HttpServer(Function) as server:
        yield f"127.0.0.1:{server.server_port}"


def test_every_address_gets_a_request(function: str) -> None:
    """Each function gets a request to /livez, also if its address has a path."""
    for thread in wake({"WAKE_URLS": f"http://{function}/ http://{function}/path"}):
        thread.join()
    assert Function.asked == [f"GET /livez {function}"] * 2


def test_a_failure_does_not_matter() -> None:
    """An unreachable or invalid address raises no error."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for thread in wake({"WAKE_URLS": f"http://127.0.0.1:{port} https://127.0.0.1:{port} http://[ nowhere"}):
        thread.join()


def test_a_bare_name_gets_the_namespace_of_the_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address is the one that recommend calls later, because a gateway does not know a Service by its bare name."""
    asked: list[str] = []

    def refuse(connection: HTTPConnection) -> None:
        asked.append(connection.host)
        raise ConnectionRefusedError

    monkeypatch.setattr(HTTPConnection, "connect", refuse)
    (tmp_path / "namespace").write_text("shop\n")
    env = {"WAKE_URLS": "http://rank-items http://127.0.0.1", "NAMESPACE_FILE": str(tmp_path / "namespace")}
    for thread in [*wake(env), *wake({**env, "NAMESPACE_FILE": str(tmp_path / "none")})]:
        thread.join()
    assert sorted(asked) == ["127.0.0.1", "127.0.0.1", "rank-items", "rank-items.shop.svc"]


@pytest.mark.parametrize("none", ["-", "", " "])
def test_no_address_wakes_nothing(none: str) -> None:
    """Without functions at zero, nothing is sent."""
    assert wake({"WAKE_URLS": none}) == []
