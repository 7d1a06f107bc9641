"""Requests that are valid HTTP and rarely seen, at each kind of server of the project."""

import contextlib
import socket
from collections.abc import Iterator

import pytest

from tests.hostile.conftest import Figure
from tests.hostile.servers import Server, read_to_end, serving
from tests.waiting import eventually

pytestmark = pytest.mark.may_block

EXPECT = b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"


def head(server: Server) -> bytes:
    return f"POST {server.probe} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n".encode()


def test_a_flood_of_expectations_waits_outside(server: Server, figure: Figure) -> None:
    """A caller that sends 5,000 requests with Expect and reads no answer costs at most 2 MB."""
    request = head(server) + EXPECT + b"{}"

    def flood() -> None:
        with server.connect() as connection:
            connection.settimeout(1.0)
            with contextlib.suppress(TimeoutError, ConnectionError):
                connection.sendall(request * 5000)
            assert server.is_serving()

    peak_mb = server.peak_mb(flood)
    figure(f"{server.kind}: MB for 5,000 requests with Expect", peak_mb, "MB")
    assert peak_mb <= 2.0


@pytest.mark.parametrize("part", ["nothing", "word", "head", "body", "whole"])
def test_a_caller_that_closes_its_sending_side_leaves_nothing(server: Server, part: str) -> None:
    """The server closes such a connection after any part of a request, and serves other callers."""
    parts = {
        "nothing": b"",
        "word": b"GET",
        "head": head(server),
        "body": head(server) + b"Content-Length: 9\r\n\r\n{}",
        "whole": server.get(),
    }
    before = server.process.num_fds()
    connections = [server.connect() for _ in range(50)]
    for connection in connections:
        connection.sendall(parts[part])
        connection.shutdown(socket.SHUT_WR)
    for connection in connections:
        answer = read_to_end(connection)
        assert not answer or answer.startswith(b"HTTP/1.1 ")
        connection.close()
    eventually(lambda: server.process.num_fds() <= before)
    assert server.is_serving()


@pytest.fixture(scope="module")
def function() -> Iterator[Server]:
    """Start a function."""
    with serving("function") as started:
        yield started


def post(function: Server, *lines: str, version: str = "1.1") -> bytes:
    """Return the answer of *function* to a valid request with *lines* in its head."""
    body = '{"user_id":"user_1"}'
    first = [f"POST / HTTP/{version}", "Host: localhost", f"Content-Length: {len(body)}", "Connection: close"]
    return function.ask("\r\n".join([*first, *lines, "", body]).encode())


def test_an_expectation_of_an_old_version_is_ignored(function: Server) -> None:
    """HTTP/1.0 has no answer 100, so its caller gets only the final answer (RFC 9110, section 10.1.1)."""
    assert post(function, "Expect: 100-continue").startswith(b"HTTP/1.1 100 ")
    assert post(function, "Expect: 100-continue", version="1.0").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(("coding", "status"), [("gzip", 415), ("GZIP, br", 415), ("identity", 200), ("", 200)])
def test_a_compressed_body_is_refused(function: Server, coding: str, status: int) -> None:
    """A function decodes no body, and says which coding it accepts."""
    answer = post(function, f"Content-Encoding: {coding}")
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert (b"\r\naccept-encoding: identity\r\n" in answer) is (status == 415)
