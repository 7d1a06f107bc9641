"""The broker's answers to senders."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from knbroker.broker import Broker
from knbroker.ingress import application
from knbroker.queue import Queue
from kubeyaml.eventing import Routing, Trigger
from tests.knbroker.subscribers import NEEDED, Subscribers

HEADERS = {f"ce-{name}": value for name, value in NEEDED.items()}
STRUCTURED = {"content-type": "application/cloudevents+json"}


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[Queue]:
    """Open an empty queue."""
    queue = Queue(tmp_path / "q.db", ["ns/t"])
    yield queue
    await queue.close()


@pytest.fixture
async def door(queue: Queue) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of a broker that accepts up to two events and delivers none."""
    broker = Broker(Routing(("ns/b",), [Trigger("ns/t", "ns/b", "http://x")]), queue, Subscribers(), limit=2, at_once=1)
    transport = httpx.ASGITransport(application(broker, limit_bytes=1000))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


async def test_an_event_is_accepted_once_it_is_on_disk(door: httpx.AsyncClient, queue: Queue) -> None:
    """The broker answers with an empty 202 in both modes, and the queue holds the event."""
    answer = await door.post("/ns/b", headers=HEADERS, content=b"1")
    assert (answer.status_code, answer.content) == (202, b"")
    assert queue.read(1).event.data == b"1"
    answer = await door.post("/ns/b", headers=STRUCTURED, json=NEEDED | {"data": {"a": 1}})
    assert answer.status_code == 202
    assert queue.read(2).event.data == b'{"a":1}'


@pytest.mark.parametrize(
    ("headers", "body", "refusal"),
    [
        ({}, b"{}", (400, "neither the content type nor ce-specversion says that this is an event")),
        ({**HEADERS, "ce-id": ""}, b"{}", (400, '{"path":"ce-id","detail":"must be a string that is not empty')),
        ({**HEADERS, "ce-specversion": "7.0"}, b"{}", (400, '{"path":"ce-specversion","detail":"must be \'1.0\'')),
        ({**HEADERS, "ce-source": "%ff"}, b"{}", (400, '{"path":"ce-source","detail":"must be UTF-8')),
        (STRUCTURED, b"{", (400, "Input data was truncated")),
        (STRUCTURED, b'{"id":"\xff"}', (400, "byte 7 is not UTF-8")),
        (
            STRUCTURED,
            b'{"specversion":"1.0"}',
            (400, '{"path":"$.id","detail":"is missing (CloudEvents: REQUIRED)"},{"path":"$.source"'),
        ),
        ({**HEADERS, "content-encoding": "gzip"}, b"{}", (400, "send the body without Content-Encoding")),
        (HEADERS, b"x" * 1001, (413, "at most 1000 bytes are accepted")),
    ],
)
async def test_a_malformed_event_is_refused_with_the_reason(
    door: httpx.AsyncClient, queue: Queue, headers: dict[str, str], body: bytes, refusal: tuple[int, str]
) -> None:
    """The answer is a 4xx with the broken rule in its body, and the queue stays empty."""
    answer = await door.post("/ns/b", headers=headers, content=body)
    assert answer.status_code == refusal[0]
    assert refusal[1] in answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == answer.status_code
    assert queue.pending() == []


async def test_unknown_paths_and_methods_are_refused(door: httpx.AsyncClient) -> None:
    """The broker answers an unknown Broker with 404, another method with 405, and the probe with 200."""
    unknown, nowhere = await door.post("/ns/c", headers=HEADERS), await door.post("/", headers=HEADERS)
    wrong = await door.get("/ns/b")
    assert (unknown.json()["code"], unknown.json()["detail"]) == ("not-found", "there is no Broker ns/c")
    assert (nowhere.status_code, nowhere.json()["code"]) == (404, "not-found")
    assert (wrong.status_code, wrong.json()["code"], wrong.headers["allow"]) == (405, "method-not-allowed", "POST")
    assert wrong.json()["detail"] == "send POST"
    assert (await door.get("/healthz")).status_code == 200


async def test_a_full_queue_answers_with_retry_after(door: httpx.AsyncClient) -> None:
    """The broker answers 503 with Retry-After, so that senders retry."""
    answers = [await door.post("/ns/b", headers=HEADERS) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 503]
    assert answers[2].headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:18000", 200), ("localhost", 200), ("a.localhost:1", 200), ("broker-ingress.knative-eventing", 200),
        ("broker-ingress.knative-eventing.svc.cluster.local:80", 200), ("events.example.com", 200),
        ("evil.example.com", 421), ("127.0.0.1.evil.com", 421), ("broker-ingress.knative-eventing.evil.com", 421),
        ("", 421), ("localhost:x", 421), (".localhost", 200), ("[::1]", 421),
    ],
)  # fmt: skip
async def test_a_broker_answers_to_its_own_hosts(host: str, status: int, tmp_path: Path) -> None:
    """Loopback names, the name that a cluster gives the broker, and configured ones; no name that was led here."""
    queue = Queue(tmp_path / "queue.db", [])
    broker = Broker(Routing(("ns/b",), []), queue, Subscribers(), limit=2, at_once=1)
    app = application(broker, limit_bytes=1000, hosts=["events.example.com"])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        for path in ("/healthz", "/ns/b"):
            answer = await (client.get if path == "/healthz" else client.post)(path, headers={"host": host})
            expected = 400 if status == 200 and path == "/ns/b" else status
            assert answer.status_code == expected
            assert ("misdirected" in answer.text) == (status == 421)
    await queue.close()
