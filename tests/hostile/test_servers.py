"""
One hostile caller harms no other caller, at any HTTP server of the project.

The figures of these tests end the run.
"""

import contextlib
import selectors
import socket
from collections.abc import Sequence
from typing import cast

import pytest

from tests.hostile.conftest import Figure
from tests.hostile.servers import Server, read_to_end, serving
from tests.waiting import eventually

pytestmark = pytest.mark.may_block

MOST_MB = 2.0
FLOODS = 4


def send_until_full(connections: Sequence[socket.socket], data: bytes, *, most: int) -> list[int]:
    """
    Send *data* repeatedly to all *connections*; return the bytes that the server took of each.

    A connection ends when it has taken *most* bytes or is closed, and all end when none takes more for a second.
    """
    taken = dict.fromkeys(connections, 0)
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            connection.setblocking(False)
            selector.register(connection, selectors.EVENT_WRITE)
        while selector.get_map() and (writable := selector.select(timeout=1.0)):
            for key, _ in writable:
                connection = cast("socket.socket", key.fileobj)
                try:
                    taken[connection] += connection.send(data)
                except ConnectionError:
                    selector.unregister(connection)
                    continue
                if taken[connection] >= most:
                    selector.unregister(connection)
    return list(taken.values())


def flood(server: Server, data: bytes, *, most: int) -> tuple[float, list[int]]:
    """Flood *server* over four connections; return the MB that each cost it and the bytes it took of each."""
    taken: list[int] = []
    # The system keeps few of the answers for a caller with a small buffer, so the server has to wait sooner.
    connections = [server.connect(receive_bytes=4096) for _ in range(FLOODS)]

    def attack() -> None:
        taken.extend(send_until_full(connections, data, most=most))
        assert server.is_serving()

    peak_mb = server.peak_mb(attack)
    for connection in connections:
        connection.close()
    return peak_mb / FLOODS, taken


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_pipelined_requests_wait_outside(server: Server, method: str, figure: Figure) -> None:
    """Reading pauses while requests wait: a flood of pipelined requests costs at most 2 MB a connection."""
    request = server.get().replace(b"GET", method.encode())
    mb, taken = flood(server, request * (64_000 // len(request)), most=6_300_000)
    figure(f"{server.kind}: memory for a connection that pipelines {method} and reads nothing", mb, "MB")
    figure(f"{server.kind}: {method} requests taken from it", max(taken) / 1e6, "MB")
    assert mb <= MOST_MB


def test_pipelined_requests_are_all_answered(server: Server, figure: Figure) -> None:
    """A caller that pipelines and reads gets every answer, and the server keeps few requests for it."""
    request = server.get()
    count = 500 if server.kind in {"metrics", "dashboard"} else 5000
    answered = 0

    def attack() -> None:
        nonlocal answered
        with server.connect() as connection:
            connection.setblocking(False)
            rest, received = request * (count - 1) + server.get("Connection: close"), b""
            while True:
                with contextlib.suppress(BlockingIOError):
                    rest = rest[connection.send(rest[:65_536]) :] if rest else rest
                try:
                    data = connection.recv(65_536)
                except BlockingIOError:
                    continue
                if not data:
                    break
                answered += (received[-20:] + data).count(b"HTTP/1.1 200 OK\r\n")
                received = data[-16:]

    mb = server.peak_mb(attack)
    figure(f"{server.kind}: memory for {count} pipelined requests that are answered", mb, "MB")
    assert answered == count
    assert mb <= MOST_MB


ENDLESS = {"one header": b"a" * 64_000, "many headers": b"A: b\r\n" * 10_000, "empty lines": b"\r\n" * 32_000}


@pytest.mark.parametrize("kind", ENDLESS)
def test_an_endless_head_is_refused(server: Server, kind: str, figure: Figure) -> None:
    """A head without an end gets 431 and loses its connection; it costs at most 2 MB a connection."""
    part = ENDLESS[kind]
    start = b"" if part.startswith(b"\r\n") else b"GET / HTTP/1.1\r\nX-A: "
    connections = [server.connect() for _ in range(FLOODS)]

    def attack() -> None:
        for connection in connections:
            connection.sendall(start)
        assert max(send_until_full(connections, part, most=40_000_000)) < 40_000_000
        assert server.is_serving()

    mb = server.peak_mb(attack) / FLOODS
    figure(f"{server.kind}: memory for a connection with a head without an end ({kind})", mb, "MB")
    for connection in connections:
        connection.close()
    assert mb <= MOST_MB


REFUSED = {
    "a long head": (b"X-A: " + b"a" * 70_000, 431),
    "many headers": (b"A: b\r\n" * 200 + b"A: b", 431),
    "two hosts": (b"Host: evil.example", 400),
    "a folded header": (b"X-A: b\r\n c", 400),
    "a NUL": (b"X-A: b\0c", 400),
    "a bare CR": (b"X-A: b\rc", 400),
    "a space before the colon": (b"X-A : b", 400),
    "two lengths": (b"Content-Length: 1\r\nContent-Length: 2", 400),
    "the same length twice": (b"Content-Length: 1\r\nContent-Length: 1", 400),
    "a list of lengths": (b"Content-Length: 1, 1", 400),
    "a signed length": (b"Content-Length: +1", 400),
    "5,000 digits of length": (b"Content-Length: " + b"1" * 5000, 400),
    "a length and chunks": (b"Content-Length: 5\r\nTransfer-Encoding: chunked", 400),
    "chunks that are not last": (b"Transfer-Encoding: chunked, gzip", 400),
    "no known coding": (b"Transfer-Encoding: xchunked", 400),
}


@pytest.mark.parametrize(("header", "status"), REFUSED.values(), ids=REFUSED)
def test_a_head_that_two_readers_could_understand_differently_is_refused(
    server: Server, header: bytes, status: int
) -> None:
    """A request that could smuggle another request is refused, and its connection closes."""
    smuggled = b"0\r\n\r\n" + server.get("Connection: close")
    answer = server.ask(server.get()[:-2] + header + b"\r\n\r\n" + smuggled)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("line", [b"GET / HTTP/2.0", b"GET /", b"PRI * HTTP/2.0", b"GET / HTTP/1.2", b"GARBAGE"])
def test_only_http_1_is_spoken(server: Server, line: bytes) -> None:
    """A request with another HTTP version, or with none, gets 400."""
    assert server.ask(line + b"\r\nHost: 127.0.0.1\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_requests_before_garbage_are_answered(server: Server) -> None:
    """Garbage after valid requests in the same read does not replace their answers."""
    answer = server.ask(server.get() * 2 + b"GARBAGE\r\n\r\n" + server.get())
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert answer.count(b"HTTP/1.1 400 ") == answer.count(b"HTTP/1.1 ") - 2 == 1


@pytest.mark.parametrize("zeros", [1, 5000])
def test_a_length_may_have_leading_zeros(server: Server, zeros: int) -> None:
    """Leading zeros do not change a content length."""
    request = server.get("Connection: close", f"Content-Length: {'0' * zeros}1") + b"a"
    assert server.ask(request).startswith(b"HTTP/1.1 200 ")
    if server.kind == "function":
        posted = server.ask(request.replace(b"GET /livez", b"POST /"))
        assert posted.startswith(b"HTTP/1.1 400 ")
        assert b'"not-json"' in posted


def test_a_body_is_not_all_frames(server: Server, figure: Figure) -> None:
    """Chunk extensions beyond the limit of a head end the connection, also in many chunks."""
    start = server.get()[:-2].replace(b"GET", b"POST") + b"Transfer-Encoding: chunked\r\n\r\n"
    with server.connect() as connection:
        connection.sendall(start)
        (sent,) = send_until_full([connection], b"1;a=" + b"b" * 30_000 + b"\r\nx\r\n", most=40_000_000)
        figure(f"{server.kind}: chunk extensions taken before the connection ends", sent / 1e6, "MB")
        assert sent < 40_000_000


def descriptors_of(server: Server) -> tuple[int, int]:
    return server.process.rlimit(7)  # RLIMIT_NOFILE


@pytest.mark.parametrize("kind", ["function", "broker", "dashboard"])
def test_the_soft_limit_of_descriptors_is_raised(kind: str) -> None:
    """A server raises its soft limit to its hard limit, which stays."""
    with serving(kind, descriptors=(256, 2000)) as server:
        assert descriptors_of(server) == (2000, 2000)


@pytest.mark.parametrize("kind", ["function", "broker", "dashboard"])
def test_too_many_connections_are_told(kind: str, figure: Figure) -> None:
    """Connections beyond the limit get 503 and the log says so; those open before are served, as are later ones."""
    with serving(kind, descriptors=(200, 200)) as server:
        connections = [server.connect() for _ in range(150)]
        for connection in connections[:90]:
            connection.sendall(server.get())
        served = [connection.recv(65_536)[:12] for connection in connections[:90]]
        refused = [read_to_end(connection) for connection in connections[110:]]
        for connection in connections:
            connection.close()
        figure(f"{kind}: connections of 150 that get 503 where 100 are allowed", len(refused), "connections")
        assert set(served) == {b"HTTP/1.1 200"}
        for answer in refused:
            assert answer.startswith(b"HTTP/1.1 503")
            assert b"\r\ncontent-type: application/problem+json\r\n" in answer
            assert b"\r\nretry-after: 1\r\n" in answer
        assert "too_many_connections" in server.log()
        eventually(server.is_serving)


def test_idle_connections_take_no_threads(figure: Figure) -> None:
    """A caller that keeps a hundred connections open occupies no thread, and other callers are served."""
    with serving("metrics") as server:
        before = server.process.num_threads()
        connections = [server.connect() for _ in range(100)]
        assert server.is_serving()
        after = server.process.num_threads()
        figure("metrics: further threads with 100 idle connections", after - before, "threads")
        for connection in connections:
            connection.close()
        assert after <= before + 1
