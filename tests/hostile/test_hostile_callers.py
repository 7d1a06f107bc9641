"""Callers who mean harm, in front of Envoy as localkn configures it."""

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from localkn.processes import is_free
from tests.hostile.conftest import Figure
from tests.localkn.running import Running, needs_envoy
from tests.waiting import eventually

pytestmark = [needs_envoy, pytest.mark.may_block]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("hostile"))
    assert running.up("--host", "films.example.com").returncode == 0
    yield running
    running.run("down")
    assert running.processes() == []


async def ask(port: int, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send *request* as it is; return status, headers and body, status 0 where nothing was answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.closing(writer):
        writer.write(request)
        answer = b""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            answer = await reader.readuntil(b"\r\n\r\n")
        lines = answer.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        # Not up to the end of the connection: Envoy keeps one that it closes for another second.
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return int(lines[0].split()[1]) if answer else 0, headers, body


def get(port: int, *headers: str, host: str = "localhost") -> tuple[int, dict[str, str], bytes]:
    lines = ["GET / HTTP/1.1", f"Host: {host}", "Connection: close", *headers, "", ""]
    return asyncio.run(ask(port, "\r\n".join(lines).encode("latin-1")))


def assert_problem(answer: tuple[int, dict[str, str], bytes], status: int) -> dict[str, object]:
    """Check that *answer* is a problem document (RFC 9457) of that status, and return the document."""
    found, headers, body = answer
    assert (found, headers.get("content-type")) == (status, "application/problem+json"), answer
    problem: dict[str, object] = json.loads(body)
    assert problem["status"] == status
    assert {"type", "title", "detail", "cause"} <= problem.keys()
    return problem


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost:99", "LOCALHOST", "anything.localhost", "front.default", "front.default.svc.cluster.local",
     "films.example.com:8080"],
)  # fmt: skip
def test_the_public_port_answers_to_its_hosts(platform: Running, host: str) -> None:
    """Loopback names, the names of Services, and what `--host` names."""
    assert get(platform.port, host=host)[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example.com", "front.default.evil.com", "127.0.0.1.evil.com", "localhost.evil.com", "0.0.0.0", "x"]
)
def test_a_host_that_was_led_here_is_refused(platform: Running, host: str) -> None:
    """DNS rebinding: a page of an attacker's site whose name now leads to this machine gets no answer."""
    inner = int(platform.status("back")["url"].rpartition(":")[2])
    for port in (platform.port, inner):
        problem = assert_problem(get(port, host=host), 421)
        assert "--host" in str(problem["detail"])


def test_too_many_and_too_long_headers_are_refused(platform: Running) -> None:
    """101 headers, or more than 60 KiB of them."""
    assert get(platform.port, *(f"a{n}: 1" for n in range(90)))[0] == 200
    assert_problem(get(platform.port, *(f"a{n}: 1" for n in range(101))), 431)
    assert_problem(get(platform.port, f"a: {'x' * 70_000}"), 431)


@pytest.mark.scenario
def test_a_head_that_never_ends_is_given_up(platform: Running) -> None:
    """A caller that sends half a head and waits is answered 408 after ten seconds."""
    answer = asyncio.run(ask(platform.port, b"GET / HTTP/1.1\r\nHost: localhost\r\n"))
    assert_problem(answer, 408)


def test_malformed_requests_are_refused(platform: Running) -> None:
    """No Host, a forged length, two lengths: refused without reaching an instance."""
    for request in (
        b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1",
    ):
        assert asyncio.run(ask(platform.port, request))[0] == 400


@pytest.mark.parametrize(
    ("version", "header", "status", "says"),
    [
        ("1.0", "Content-Length: 0", 426, b"HTTP/1.1"),
        ("1.1", "Transfer-Encoding: gzip, chunked", 501, b"Content-Length"),
    ],
)
def test_what_envoy_does_not_speak_is_explained(
    platform: Running, version: str, header: str, status: int, says: bytes
) -> None:
    """Some load generators send HTTP/1.0; the answer says what to send instead."""
    request = f"POST / HTTP/{version}\r\nHost: localhost\r\n{header}\r\n\r\n".encode()
    answer = asyncio.run(ask(platform.port, request))
    assert_problem(answer, status)
    assert says in answer[2]


@pytest.mark.parametrize(
    ("method", "protocol", "problem"),
    [("GET", "websocket", None), ("POST", "websocket", 400), ("POST", "WebSocket", 400), ("POST", "h2c", None),
     ("POST", "other", 403)],
)  # fmt: skip
def test_an_offer_to_upgrade_is_answered(platform: Running, method: str, protocol: str, problem: int | None) -> None:
    """Envoy passes an offer of websocket with GET to the Service, ignores h2c, and refuses other offers."""
    head = f"{method} / HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: {protocol}\r\n"
    body = "\r\n" if method == "GET" else "Content-Length: 2\r\n\r\n{}"
    answer = asyncio.run(ask(platform.port, (head + body).encode()))
    if problem is None:
        assert answer[0] != 0
        assert answer[1].get("content-type") != "application/problem+json"
    else:
        assert_problem(answer, problem)


def test_a_request_for_the_whole_server_is_refused(platform: Running) -> None:
    """Envoy answers OPTIONS * with a problem document."""
    assert_problem(asyncio.run(ask(platform.port, b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n")), 404)


@pytest.mark.scenario
def test_when_the_only_instance_dies_callers_are_told_when_to_return(platform: Running, figure: Figure) -> None:
    """Envoy's 503 is a problem document with Retry-After until the next instance is ready."""
    durations, seen = [], set()
    for _ in range(3):
        eventually(lambda: get(platform.port)[0] == 200)
        dead = json.loads(get(platform.port)[2])["pid"]
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            asyncio.run(ask(platform.port, b"GET /crash HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
        while (answer := get(platform.port))[0] != 200:
            seen.add(answer[0])
            assert_problem(answer, answer[0])
            assert answer[0] != 503 or answer[1]["retry-after"] == "1"
        durations.append(time.monotonic() - began)
        assert json.loads(answer[2])["pid"] != dead
    assert {503} <= seen <= {502, 503}
    figure("503 when the only instance dies, the longest of three times", max(durations), "s")


def test_connections_beyond_the_limit_leave_the_others_alone(platform: Running) -> None:
    """Two hundred idle connections and half heads: a new caller is answered."""

    async def crowd() -> int:
        writers = [(await asyncio.open_connection("127.0.0.1", platform.port))[1] for _ in range(200)]
        for writer in writers:
            writer.write(b"GET / HTTP/1.1\r\n")
        status = (await ask(platform.port, b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))[0]
        for writer in writers:
            writer.close()
        return status

    assert asyncio.run(crowd()) == 200


def test_a_platform_keeps_its_directory_to_itself(platform: Running) -> None:
    """Access to the control socket is control of the platform, so only the owner may enter the directory."""
    assert platform.state.root.stat().st_mode & 0o777 == 0o700
    assert not is_free(platform.port)
    assert Path(platform.state.socket("control")).is_socket()
