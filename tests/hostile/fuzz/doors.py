"""The doors of the running pipeline: what is valid there, and how a request is sent and its answer judged."""

import contextlib
import http.client
import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.hostile.fuzz.mutations import Request

LONGEST_REFUSAL_BYTES = 100_000
ANSWER_WITHIN_S = 30.0
# How long damaged bytes may go unanswered: the server may wait for the rest of an unfinished request.
PATIENCE_S = 0.1

FEATURES = {"age_group": "25-34", "avg_session_duration": 584.857, "total_purchases": 5, "engagement_score": 0.481481}
RECOMMEND = [
    {"user_id": "user_42", "top_k": 5, "exclude": ["item_9"]},
    {"requests": [{"user_id": "user_1"}, {"user_id": "nobody", "top_k": 100}]},
]
EXTRACT = [{"user_id": "user_42"}, {"user_ids": ["user_42", "user_7"]}]
RANK = [
    {"features": FEATURES, "history": ["item_17", "item_3"], "top_k": 5, "exclude": ["item_9"]},
    {"requests": [{"features": FEATURES, "history": ["item_1"]}]},
]
INTERACTION = [{"user_id": "fuzz_1", "kind": "purchase", "item_id": "item_8", "time": "2026-01-01T12:00:00Z"}]
CONTEXT = {"specversion": "1.0", "type": "dev.recsys.interaction.v1", "source": "/fuzz", "id": "1"}
BINARY = tuple((b"ce-" + name.encode(), value.encode()) for name, value in CONTEXT.items())
STRUCTURED = {**CONTEXT, "time": "2026-01-01T12:00:00Z", "datacontenttype": "application/json", "data": INTERACTION[0]}


def post(*headers: tuple[bytes, bytes], path: bytes = b"/", body: bytes = b"") -> Request:
    """Return a POST of JSON, unless *headers* say otherwise."""
    given = headers if any(name == b"content-type" for name, _ in headers) else (
        (b"content-type", b"application/json"), *headers
    )  # fmt: skip
    return Request(b"POST", path, given, body)


def events(path: bytes = b"/") -> list[tuple[Request, Sequence[Any]]]:
    """Return an interaction event in binary and in structured mode, and a batch of events."""
    return [
        (post(*BINARY, path=path), INTERACTION),
        (post((b"content-type", b"application/cloudevents+json"), path=path), [STRUCTURED]),
        (post((b"content-type", b"application/cloudevents-batch+json"), path=path), [[STRUCTURED, STRUCTURED]]),
    ]


def canary(body: Any, *headers: tuple[bytes, bytes], path: bytes = b"/") -> Request:
    """Return a valid request whose answer is known."""
    patient = (b"x-request-timeout-ms", b"20000")
    return post(patient, *headers, path=path, body=json.dumps(body).encode())


@dataclass(frozen=True)
class Door:
    """
    A door of the pipeline.

    Attributes:
        name: Its name in the figures.
        valid: What is mutated: requests, each with the documents that its body may be.
        canary: A valid request, whose answer must stay the same.
        has_problems: Whether each refusal is a problem document; else a refusal is any short text.
    """

    name: str
    valid: Sequence[tuple[Request, Sequence[Any]]]
    canary: Request
    has_problems: bool = True


_RECOMMEND = [(post(), RECOMMEND)]
DOORS = [
    Door("public port", _RECOMMEND, canary(RECOMMEND[0])),
    Door("recommend", _RECOMMEND, canary(RECOMMEND[0])),
    Door("extract-features", [(post(), EXTRACT), *events()], canary(EXTRACT[0])),
    Door("rank-items", [(post(), RANK)], canary(RANK[0])),
    Door(
        "broker-ingress",
        events(b"/default/default"),
        canary(INTERACTION[0], *BINARY, path=b"/default/default"),
        has_problems=False,
    ),
    Door(
        "dashboard",
        [
            (post(path=b"/_dashboard/request"), RECOMMEND),
            *((Request(b"GET", path), ()) for path in (b"/_dashboard", b"/_dashboard/state", b"/metrics")),
        ],
        Request(b"GET", b"/_dashboard/page.js"),
        has_problems=False,
    ),
]


@dataclass(frozen=True)
class Answer:
    """The status, media type and body of an answer."""

    status: int
    media_type: str
    body: bytes


def send(port: int, request: Request) -> Answer | None:
    """Send *request* on a new connection; return the answer, or None if the server closes or waits without one."""
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_WITHIN_S) as connection:
        # The server may answer and close before it has read everything.
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            connection.sendall(request.encode(port))
        if request.raw is not None:
            connection.settimeout(PATIENCE_S)
        response = http.client.HTTPResponse(connection, method=request.method.decode())
        try:
            response.begin()
            connection.settimeout(ANSWER_WITHIN_S)
            return Answer(response.status, response.getheader("content-type", ""), response.read())
        except (TimeoutError, ConnectionResetError, http.client.RemoteDisconnected):
            return None
        finally:
            response.close()


def assert_fair(door: Door, request: Request, answer: Answer | None) -> None:
    """Check that *answer* says what is wrong with *request*, in few words, or is a success."""
    if answer is None:
        assert request.raw is not None, "a valid request got no answer"
        return
    if answer.status < 400:
        return
    assert answer.status < 500 or answer.status in {503, 504}, answer
    assert len(answer.body) <= LONGEST_REFUSAL_BYTES, (answer.status, len(answer.body))
    if request.method == b"HEAD":
        return
    assert answer.body, answer
    if door.has_problems or answer.status >= 500:
        assert answer.media_type == "application/problem+json", answer
        problem = json.loads(answer.body)
        assert problem["status"] == answer.status
        assert problem.get("detail") or problem.get("errors") or problem["title"], problem
