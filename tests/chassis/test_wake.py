"""Wake calls to functions at zero."""

import socket
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import ClassVar

import pytest

from chassis.wake import complete_url, wake
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


@pytest.fixture
def resolver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a file into the place of the machine's resolver configuration."""
    file = tmp_path / "resolv.conf"
    monkeypatch.setattr("chassis.wake.RESOLVER", file)
    return file


def test_a_bare_name_gets_the_namespace_of_the_pod(resolver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address is the one that recommend calls later, because a gateway does not know a Service by its bare name."""
    asked: list[str] = []

    def refuse(connection: HTTPConnection) -> None:
        asked.append(connection.host)
        raise ConnectionRefusedError

    monkeypatch.setattr(HTTPConnection, "connect", refuse)
    resolver.write_text("search shop.svc.cluster.local svc.cluster.local cluster.local\n")
    for thread in wake({"WAKE_URLS": "http://rank-items http://127.0.0.1"}):
        thread.join()
    assert sorted(asked) == ["127.0.0.1", "rank-items.shop.svc"]


@pytest.mark.parametrize(
    ("given", "completed"),
    [
        ("http://rank-items", "http://rank-items.shop.svc"),
        ("https://rank-items:8080/v1", "https://rank-items.shop.svc:8080/v1"),
        ("http://rank-items.other.svc.cluster.local", "http://rank-items.other.svc.cluster.local"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
    ],
)
@pytest.mark.parametrize(
    "search",
    [
        "search shop.svc.cluster.local svc.cluster.local cluster.local",
        "nameserver 10.96.0.10\nsearch shop.svc.example svc.example example other.svc.example\noptions ndots:5",
        "search\tcompany.example shop.svc.cluster.local svc.cluster.local",
    ],
)
def test_only_bare_names_are_completed(resolver: Path, search: str, given: str, completed: str) -> None:
    """The same manifests work in any namespace and cluster domain; an address with a dot stays as it is."""
    resolver.write_text(f"{search}\n")
    assert complete_url(given) == completed


@pytest.mark.parametrize("content", [None, b"", b"search company.example svc.example", b"# search a.svc.b", b"\xff"])
def test_without_a_namespace_the_address_stays(resolver: Path, content: bytes | None) -> None:
    """Outside a cluster the resolver names no namespace."""
    if content is not None:
        resolver.write_bytes(content)
    assert complete_url("http://rank-items") == "http://rank-items"


@pytest.mark.parametrize("none", ["-", "", " "])
def test_no_address_wakes_nothing(none: str) -> None:
    """Without functions at zero, nothing is sent."""
    assert wake({"WAKE_URLS": none}) == []
