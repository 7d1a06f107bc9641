"""
The direct path for plain requests and uvicorn's own path answer with the same bytes, however the input is split.

A `Wire` stands for the connection, so that a test controls the content of each read and the time of a disconnect.
Requests in `TREATED_DIFFERENTLY` are deliberately read differently from uvicorn: each is compared with uvicorn's answer
to an equivalent request.
"""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from chassis.call import Call, Reply, problem_reply
from chassis.server import protocol as protocol_module
from chassis.server.connection import reply_bytes
from chassis.server.limits import ServerLimits
from chassis.server.protocol import FunctionConnection, PlainExchange
from chassis.wire.problems import NotHttpError
from tests.chassis.server.wire import CHUNKED, ProtocolServer, Wire, cut, echo, request, settle


class Uvicorns(HttpToolsProtocol):
    """uvicorn's protocol, except that its 400 is this project's problem document."""

    def send_400_response(self, _msg: str) -> None:
        self.transport.write(reply_bytes(problem_reply(NotHttpError()), keep_alive=False))
        self.transport.close()


WRONG_CHUNK = b"POST / HTTP/1.1\r\nHost: x\r\nX-Request-Id: r1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n"
INPUTS = {
    "plain": request(),
    "without a body": request(b""),
    "two in one read": request(b"1") + request(b"2"),
    "three, the second not plain": request(b"1") + request(start=b"GET / HTTP/1.1", body=b"") + request(b"3"),
    "three, the first not plain": request(b"", start=b"HEAD /livez HTTP/1.1") + request(b"2") + request(b"3"),
    "in chunks": CHUNKED,
    "in chunks, then another": CHUNKED + request(b"2"),
    "expects 100-continue": request(b"1", b"Expect: 100-continue"),
    "closes": request(b"1", b"Connection: close"),
    "closes, but sends more": request(b"1", b"Connection: close") + request(b"2"),
    "HTTP/1.0": request(b"1", start=b"POST / HTTP/1.0"),
    "HTTP/1.0 with keep-alive": request(b"1", b"Connection: keep-alive", start=b"POST / HTTP/1.0") * 2,
    "with a query": request(b"1", start=b"POST /?a=b HTTP/1.1"),
    "another method": request(b"1", start=b"PUT / HTTP/1.1"),
    "a probe": request(b"", start=b"GET /readyz HTTP/1.1"),
    "in several chunks, after another": request(b"1") + CHUNKED,
    "not a JSON type": request(b"1", b"Content-Type: text/html"),
    "too long": request(b"x" * 1025),
    "too long in chunks": b"POST / HTTP/1.1\r\nHost: x\r\nX-Request-Id: r1\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"200\r\n%b\r\n" % (b"y" * 512) * 3
    + b"0\r\n\r\n",
    "not HTTP": b"GARBAGE\r\n\r\n",
    "a wrong chunk": WRONG_CHUNK,
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nX-Request-Id: r1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a handler that crashes": request(b"crash") + request(b"after"),
}

H2C = (b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAMAAABk", b"Upgrade: h2c")
WEBSOCKET = (b"Connection: upgrade", b"Upgrade: websocket")
TRAILERS = CHUNKED[:-2] + b"X-Request-Id: r9\r\nContent-Type: text/html\r\nExpect: 100-continue\r\n\r\n"
# Pairs of the bytes that the caller sends and the bytes that they are treated as, in the reads that uvicorn needs.
TREATED_DIFFERENTLY: dict[str, tuple[bytes, bytes | list[bytes]]] = {
    "not HTTP, after a request": (request(b"1") + b"GARBAGE\r\n\r\n", [request(b"1"), b"GARBAGE\r\n\r\n"]),
    "not HTTP, after two requests": (request(b"1") * 2 + b"GARBAGE\r\n\r\n", [request(b"1") * 2, b"GARBAGE\r\n\r\n"]),
    "a wrong chunk after a request": (request(b"1") + WRONG_CHUNK, [request(b"1"), WRONG_CHUNK]),
    "offers to upgrade": (request(b"1", *H2C), request(b"1")),
    "offers to upgrade, without a body": (request(b"", *WEBSOCKET, length=False), request(b"", length=False)),
    "offers to upgrade, then another": (request(b"1", *H2C) + request(b"2"), request(b"1") + request(b"2")),
    "offers to upgrade three times": (request(b"1", *H2C) * 3, request(b"1") * 3),
    "offers to upgrade after another": (request(b"1") + request(b"2", *WEBSOCKET), request(b"1") + request(b"2")),
    "offers to upgrade a probe": (request(b"", *H2C, start=b"GET /livez HTTP/1.1"), request(start=b"GET /livez HTTP/1.1")),
    "offers to upgrade with a request as its body": (request(request(b"2"), *H2C), request(request(b"2"))),
    "offers to upgrade in chunks": (CHUNKED.replace(b"\r\n", b"\r\nConnection: upgrade\r\nUpgrade: foo\r\n", 1), CHUNKED),
    "offers to upgrade and closes": (
        request(b"1", b"Connection: upgrade, close", b"Upgrade: h2c"), request(b"1", b"Connection: close")),
    "offers to upgrade, expects 100-continue": (
        request(b"1", b"Expect: 100-continue", *H2C), request(b"1", b"Expect: 100-continue")),
    "offers to upgrade, two lengths": (
        request(b"ab", b"Content-Length: 1", *H2C), request(b"ab", b"Content-Length: 1")),
    "trailers": (TRAILERS, CHUNKED),
    "trailers, then another": (TRAILERS + request(b"2"), CHUNKED + request(b"2")),
}  # fmt: skip
INPUTS_AND_EQUIVALENTS = {name: (talk, talk) for name, talk in INPUTS.items()} | TREATED_DIFFERENTLY


def reads_of(equivalent: bytes | list[bytes]) -> list[bytes]:
    return [equivalent] if isinstance(equivalent, bytes) else equivalent


@pytest.mark.parametrize(("sent", "equivalent"), INPUTS_AND_EQUIVALENTS.values(), ids=INPUTS_AND_EQUIVALENTS)
async def test_requests_in_one_read_get_uvicorns_answer(sent, equivalent):
    """Input that arrives in one read gets the same bytes in reply, and the connection ends in the same state."""
    ours, theirs = (
        await ProtocolServer(FunctionConnection, echo).talk([sent]),
        await ProtocolServer(Uvicorns, echo).talk(reads_of(equivalent)),
    )
    assert (ours.sent, ours.closed, ours.reading) == (theirs.sent, theirs.closed, theirs.reading)
    assert ours.sent


@settings(deadline=None, max_examples=200)
@given(data=st.data(), name=st.sampled_from(sorted(INPUTS_AND_EQUIVALENTS)))
def test_requests_in_several_reads_get_uvicorns_answer(data, name):
    """The answers stay the same wherever the input is split into reads."""
    sent, equivalent = INPUTS_AND_EQUIVALENTS[name]
    cuts = data.draw(st.sets(st.integers(1, len(sent) - 1), max_size=5))

    async def both() -> list[Wire]:
        # Identical input is split identically, because uvicorn answers some requests before they are complete.
        reads = cut(sent, cuts) if sent == equivalent else reads_of(equivalent)
        return [
            await ProtocolServer(FunctionConnection, echo).talk(cut(sent, cuts)),
            await ProtocolServer(Uvicorns, echo).talk(reads),
        ]

    ours, theirs = asyncio.run(both())
    assert (ours.sent, ours.closed, ours.reading) == (theirs.sent, theirs.closed, theirs.reading)


async def test_a_plain_request_takes_the_direct_path(monkeypatch):
    """Plain requests use the direct path and others do not, so that the comparison above proves something."""
    taken = []
    run = PlainExchange.run

    async def noting(self: PlainExchange, answer: protocol_module.AnswerRequest) -> None:
        taken.append(self)
        await run(self, answer)

    monkeypatch.setattr(PlainExchange, "run", noting)
    side = ProtocolServer(FunctionConnection, echo)
    wire = await side.talk([request(b"1"), request(b"2")])
    assert len(taken) == 2
    assert len(wire.writes) == 2
    assert side.state.total_requests == 2
    assert not side.state.tasks
    await side.talk([request(b"1")[:-1], b"1"])
    await side.talk([request(start=b"GET / HTTP/1.1")])
    assert len(taken) == 2


@pytest.mark.parametrize("target", [b"/", b"x:443", b"http://x/"])
async def test_a_tunnel_is_refused(target):
    """The server refuses CONNECT and does not parse the bytes that follow as HTTP."""
    tunnel = request(request(b"2"), start=b"CONNECT %b HTTP/1.1" % target)
    wire = await ProtocolServer(FunctionConnection, echo).talk([tunnel])
    assert wire.sent.startswith(b"HTTP/1.1 405")
    assert wire.sent.count(b"HTTP/1.1") == 1
    assert (b"allow: GET, HEAD, POST\r\n" in wire.sent, wire.closed) == (True, True)


def request_with_head(length: int) -> bytes:
    """Return a request whose head has *length* to *length* + 20 bytes."""
    return request(b"1", b"X-A: " + b"a" * (length - 80))


@pytest.mark.parametrize("length", [10_000, ServerLimits.head_bytes - 200, ServerLimits.head_bytes + 200, 200_000])
@pytest.mark.parametrize("size", [4096, 100_000, 1_000_000])
async def test_an_oversized_head_is_refused(length, size):
    """A head over the limit gets 431 and the connection closes, whether it arrives in one read or in several."""
    talk = request_with_head(length)
    wire = await ProtocolServer(FunctionConnection, echo).talk(cut(talk, set(range(size, len(talk), size))))
    long = length > ServerLimits.head_bytes
    assert wire.sent.startswith(b"HTTP/1.1 431" if long else b"HTTP/1.1 200")
    assert (b'"head-too-large"' in wire.sent, wire.sent.count(b"HTTP/1.1"), wire.closed) == (long, 1, long)


async def test_bodies_do_not_count_toward_the_head_limit():
    """Long bodies, whole or chunked, and many requests in one read do not trigger the head limit."""
    side = ProtocolServer(FunctionConnection, echo)
    long = b"x" * 3 * ServerLimits.head_bytes
    chunks = CHUNKED.partition(b"3\r\n")[0] + b"4\r\nabcd\r\n" * 50_000 + b"0\r\n\r\n"
    for talk in (request(long), chunks):
        refused = await side.talk(cut(talk, set(range(20_000, len(talk), 20_000))))
        assert (refused.sent.count(b"HTTP/1.1 413"), refused.sent.count(b"HTTP/1.1 ")) == (1, 1)
        refused.protocol.data_received(request(b"1"))
        await settle()
        assert refused.sent.endswith(b"\r\n\r\n1")
    wire = side.connect()
    wire.protocol.data_received(request(b"1") * 1000)
    while wire.sent.count(b"HTTP/1.1 200") < 1000:
        await settle()


async def test_trailers_count_toward_the_head_limit():
    """Trailers over the limit get 431, because the parser buffers a trailer of any length."""
    wire = await ProtocolServer(FunctionConnection, echo).talk([CHUNKED[:-2], b"X-A: ", *[b"a" * 30_000] * 3])
    assert wire.sent.startswith(b"HTTP/1.1 431")
    assert wire.closed


async def test_several_chunks_take_uvicorns_path(monkeypatch):
    """A body of several chunks goes through uvicorn, because joining chunks here would take quadratic time."""
    handed_over = []
    on_body = HttpToolsProtocol.on_body

    def noting(self: HttpToolsProtocol, body: bytes) -> None:
        handed_over.append(body)
        on_body(self, body)

    monkeypatch.setattr(HttpToolsProtocol, "on_body", noting)
    side = ProtocolServer(FunctionConnection, echo)
    assert (await side.talk([CHUNKED])).sent.endswith(b"\r\n\r\nabcde")
    assert handed_over == [b"abc", b"de"]
    assert (await side.talk([CHUNKED.replace(b"2\r\nde\r\n", b"")])).sent.endswith(b"\r\n\r\nabc")
    assert len(handed_over) == 2


async def test_a_header_with_a_line_break_is_not_sent(caplog):
    """A handler cannot add a second header through a line break in a header value."""

    async def split(_call: Call) -> Reply:
        return Reply(b"", headers=((b"x-a", b"1\r\nset-cookie: a=b"),))

    wire = await ProtocolServer(FunctionConnection, split).talk([request()])
    assert wire.sent.startswith(b"HTTP/1.1 500")
    assert b"set-cookie" not in wire.sent
    assert wire.closed
    assert "exchange_failed" in caplog.text
