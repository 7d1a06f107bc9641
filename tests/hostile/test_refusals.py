"""The refusals of every kind of server: problem documents, for heads that are faulty and for requests that are not."""

from collections.abc import Iterator
from contextlib import ExitStack

import msgspec
import pytest

from tests.hostile.servers import KINDS, Server, serving

pytestmark = pytest.mark.may_block

HOST = b"Host: 127.0.0.1\r\n"
FAULTY = {
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "no host in a request before another": (b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "another coding": (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    "a coding twice": (
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "a long head": (b"GET / HTTP/1.1\r\n" + HOST + b"X-A: " + b"a" * 70_000 + b"\r\n\r\n", 431),
}


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Server]]:
    """Start a server of each kind."""
    with ExitStack() as stack:
        yield {kind: stack.enter_context(serving(kind)) for kind in KINDS}


def problem(answer: bytes) -> tuple[int, int, str]:
    """Return the status of *answer* and of its problem document, and the document's code."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\ncontent-type: application/problem+json" in head.lower(), answer[:300]
    document = msgspec.json.decode(body)
    return int(head.split()[1]), document["status"], document["code"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FAULTY)
def test_a_faulty_head_gets_one_problem_document(servers: dict[str, Server], kind: str, name: str) -> None:
    """The server refuses the head with a problem document, and closes the connection."""
    request, status = FAULTY[name]
    answer = servers[kind].ask(request)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert problem(answer)[:2] == (status, status)


# The metrics are served at any path, to any method and host.
OTHERS = [kind for kind in KINDS if kind != "metrics"]
REFUSED = {
    "another path": (b"GET /nowhere HTTP/1.1\r\n", HOST, 404, "not-found", OTHERS),
    "a path of the framework": (b"GET /favicon.ico HTTP/1.1\r\n", HOST, 404, "not-found", ["function"]),
    "the whole server": (b"OPTIONS * HTTP/1.1\r\n", HOST, 404, "not-found", OTHERS),
    "another method": (b"PURGE /nowhere HTTP/1.1\r\n", HOST, 405, "method-not-allowed", ["function"]),
    "another host": (b"GET / HTTP/1.1\r\n", b"Host: evil.example\r\n", 421, "misdirected", ["broker", "dashboard"]),
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for name in REFUSED for kind in REFUSED[name][4]])
def test_a_request_that_is_not_served_gets_a_problem_document(servers: dict[str, Server], kind: str, name: str) -> None:
    """The server names the fault by a code that all servers use."""
    line, host, status, code, _ = REFUSED[name]
    assert problem(servers[kind].ask(line + host + b"Connection: close\r\n\r\n")) == (status, status, code)
