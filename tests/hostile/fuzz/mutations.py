"""Strategies that mutate valid requests: their structure, their bytes and their heads."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from hypothesis import strategies as st

Draw = Callable[[st.SearchStrategy[Any]], Any]
Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True)
class Request:
    """
    A request as it goes over the wire.

    Attributes:
        method: Its method.
        path: Its path.
        headers: Its headers, without Host, Content-Length and Connection.
        body: Its body.
        raw: Bytes that are sent instead of all of this: damaged, and perhaps no HTTP.
    """

    method: bytes
    path: bytes
    headers: Headers = ()
    body: bytes = b""
    raw: bytes | None = None

    def encode(self, port: int) -> bytes:
        """Return the bytes to send to *port* of the loopback."""
        if self.raw is not None:
            return self.raw
        lines = [
            self.method + b" " + self.path + b" HTTP/1.1",
            b"Host: 127.0.0.1:%d" % port,
            b"Connection: close",
            b"Content-Length: %d" % len(self.body),
            *(name + b": " + value for name, value in self.headers),
        ]
        return b"\r\n".join(lines) + b"\r\n\r\n" + self.body

    def __repr__(self) -> str:
        """Show the beginning of what is sent: some bodies are hundreds of kilobytes long."""
        sent = self.encode(0)
        return f"<{len(sent)} bytes: {sent[:600]!r}>"


MOST_BYTES = 2**20

# JSON values, some of which no reader should accept, as bytes: a document may hold any of them anywhere.
FRAGMENTS = (
    *(b"null", b"true", b"0", b"-1", b"1.5", b"1e999", b"-0.0", b"18446744073709551616", b"NaN", b"Infinity", b"01"),
    *(b"{}", b"[]", b'""', b'"a"', b'"user_1"', b'"item_1"', b'"2026-02-31T00:00:00Z"', b'"0000-00-00T99:99:99Z"'),
    *(b'"\\ud800"', b'"\\u0000"', b'"\xff\xfe"', b'"\xed\xa0\x80"', b'"\xf0\x9f\x98\x80"', b'"a', b'"\n"', b"'a'"),
    b"9" * 5000,
    b"0." + b"1" * 5000,
    b'"' + b"a" * 257 + b'"',
    b'"' + b"\\u0001" * 40_000 + b'"',
    b"[" * 400 + b"]" * 400,
    b"[" * 100_000,
    b'{"a":' * 5000 + b"1" + b"}" * 5000,
    b"[" + b"1," * 130_000 + b"1]",
    b"[" + b'"a",' * 1000 + b'"a"]',
    b"{" + b",".join(b'"%d":1' % number for number in range(20_000)) + b"}",
    b" " * 100_000 + b"1",
)

# Values that a header may legally have, and values that a parser of it could stumble over.
VALUES = (
    *(b"", b"0", b"-1", b"1", b"1e9", b"9" * 400, b"a" * 8000, b"\xff\xfe", b"caf\xc3\xa9", b"%", b"%00", b"%ff", b"*"),
    *(b"application/json", b"application/json; charset=utf-16", b"text/plain", b"multipart/form-data; boundary=a"),
    *(b"application/cloudevents+json", b"application/cloudevents-batch+json", b"application/cloudevents+avro"),
    *(b"handling=strict", b"handling=" + b"a," * 2000, b"Bearer a.b.c", b"Basic " + b"=" * 500, b"gzip", b"br, *;q=0"),
    b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01",
    b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    b"a=1," * 1500 + b"a=1",
    b"2026-02-31T00:00:00Z",
)
NAMES = (
    *(b"content-type", b"accept", b"accept-encoding", b"content-encoding", b"prefer", b"authorization", b"origin"),
    *(b"x-request-timeout-ms", b"x-request-id", b"traceparent", b"tracestate", b"baggage", b"x-forwarded-for"),
    *(b"ce-specversion", b"ce-id", b"ce-source", b"ce-type", b"ce-time", b"ce-subject", b"ce-dataschema", b"ce-x"),
    *(b"cookie", b"range", b"if-match", b"te", b"expect", b"upgrade", b"x-http-method-override", b"forwarded"),
)
METHODS = (b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"HEAD")
PATHS = (
    b"/",
    b"//",
    b"/livez",
    b"/readyz",
    b"/metrics",
    b"/..%2f..%2fetc/passwd",
    b"/?" + b"a=1&" * 500,
    b"/%ff%00",
    b"/*",
)

JUNK = (b"\x00", b"\xff", b"\r\n", b"\r\n\r\n", b'"', b"}", b"]", b"{", b"9" * 300, b"\xed\xa0\x80", b":" * 50)


@st.composite
def documents(draw: Draw, valid: Sequence[Any]) -> bytes:
    """Draw JSON that is one of *valid* after up to three edits of its structure, cut off after MOST_BYTES."""
    tree = draw(st.sampled_from(valid))
    for _ in range(draw(st.integers(0, 3))):
        tree = _edited(draw, tree)
    return msgspec.json.encode(tree)[:MOST_BYTES]


def _edited(draw: Draw, node: Any) -> Any:
    """Return *node* with one edit, in the node itself or in a randomly chosen node below it."""
    if isinstance(node, dict) and node and draw(st.booleans()):
        key = draw(st.sampled_from(sorted(node)))
        return {**node, key: _edited(draw, node[key])}
    if isinstance(node, list) and node and draw(st.booleans()):
        at = draw(st.integers(0, len(node) - 1))
        return [*node[:at], _edited(draw, node[at]), *node[at + 1 :]]
    if isinstance(node, dict) and node and draw(st.booleans()):
        key = draw(st.sampled_from(sorted(node)))
        rest = {name: value for name, value in node.items() if name != key}
        return draw(st.sampled_from([rest, {**rest, f"{key}_": node[key]}, {**node, "": node[key]}]))
    fragment = msgspec.Raw(draw(st.sampled_from(FRAGMENTS)))
    return draw(st.sampled_from([fragment, [node], [node] * 300, {"a": node}, [node, fragment], {"requests": node}]))


@st.composite
def damaged(draw: Draw, data: bytes) -> bytes:
    """Draw *data* with one to three cuts, repetitions, flipped bits or insertions."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 80)))
        middle = bytes(byte ^ draw(st.sampled_from([1, 32, 128, 255])) for byte in data[start : start + 1])
        data = draw(
            st.sampled_from(
                [
                    data[:start],
                    data[:start] + data[end:],
                    data[:end] + data[start:],
                    data[:start] + middle + data[start + 1 :],
                    data[:start] + draw(st.sampled_from(JUNK)) + data[start:],
                ]
            )
        )
    return data


@st.composite
def _reheaded(draw: Draw, request: Request) -> Request:
    """Draw *request* with up to four headers removed, repeated, exchanged or added, and perhaps another target."""
    headers = list(request.headers)
    for _ in range(draw(st.integers(1, 4))):
        if headers and draw(st.booleans()):
            at = draw(st.integers(0, len(headers) - 1))
            name = headers.pop(at)[0]
            if draw(st.booleans()):
                headers += [(name, draw(st.sampled_from(VALUES)))] * draw(st.integers(1, 2))
        else:
            headers.append((draw(st.sampled_from(NAMES)), draw(st.sampled_from(VALUES))))
    method = draw(st.sampled_from([request.method] * 4 + list(METHODS)))
    path = draw(st.sampled_from([request.path] * 8 + list(PATHS)))
    return replace(request, method=method, path=path, headers=tuple(headers))


@st.composite
def requests(draw: Draw, valid: Sequence[tuple[Request, Sequence[Any]]]) -> Request:
    """
    Draw a mutation of a valid request.

    Args:
        draw: Draws.
        valid: Requests, each with the documents that its body may be.
    """
    request, bodies = draw(st.sampled_from(valid))
    body = draw(documents(bodies)) if bodies else b""
    mutated: Request = replace(request, body=body)
    kind = draw(st.sampled_from(["document", "document", "document", "bytes", "head", "head", "raw"]))
    if kind == "bytes":
        mutated = replace(mutated, body=draw(damaged(body)))
    elif kind == "head":
        mutated = draw(_reheaded(mutated))
    elif kind == "raw":
        mutated = replace(mutated, raw=draw(damaged(mutated.encode(0))))
    return mutated


def every_fragment(valid: Sequence[tuple[Request, Sequence[Any]]]) -> list[Request]:
    """Return requests that have each fragment at each place of each document, and each value in a few headers."""
    found = [
        replace(request, body=msgspec.json.encode(tree))
        for request, bodies in valid
        for body in bodies
        for fragment in FRAGMENTS
        for tree in _replaced(body, msgspec.Raw(fragment))
    ]
    request = replace(valid[0][0], body=msgspec.json.encode(valid[0][1][0]) if valid[0][1] else b"")
    pairs = zip(itertools.cycle(NAMES), VALUES * 4, strict=False)
    return found + [replace(request, headers=(*request.headers, pair)) for pair in pairs]


def _replaced(node: Any, by: msgspec.Raw) -> list[Any]:
    """Return *node* with *by* in place of itself, and of each value below it."""
    below: list[Any] = []
    if isinstance(node, dict):
        below = [{**node, key: tree} for key, value in node.items() for tree in _replaced(value, by)]
    elif isinstance(node, list):
        below = [[tree, *node[1:]] for tree in _replaced(node[0], by)] if node else []
    return [by, *below]
