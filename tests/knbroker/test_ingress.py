"""The door of the broker: which answers a sender gets."""

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
    """An empty one."""
    queue = Queue(tmp_path / "q.db", ["ns/t"])
    yield queue
    await queue.close()


@pytest.fixture
async def door(queue: Queue) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a broker that accepts and never delivers, two events at most."""
    broker = Broker(Routing(("ns/b",), [Trigger("ns/t", "ns/b", "http://x")]), queue, Subscribers(), limit=2, at_once=1)
    transport = httpx.ASGITransport(application(broker, limit_bytes=1000))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


async def test_an_event_is_accepted_once_it_is_durable(door: httpx.AsyncClient, queue: Queue) -> None:
    """202, empty, and it is in the file; both modes."""
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
        ({**HEADERS, "ce-id": ""}, b"{}", (400, "ce-id must be a string that is not empty")),
        ({**HEADERS, "ce-specversion": "7.0"}, b"{}", (400, "ce-specversion must be '1.0'")),
        ({**HEADERS, "ce-source": "%ff"}, b"{}", (400, "ce-source must be UTF-8")),
        (STRUCTURED, b"{", (400, "The body is not JSON: Input data was truncated")),
        (STRUCTURED, b'{"id":"\xff"}', (400, "byte 7 is not UTF-8")),
        (STRUCTURED, b'{"specversion":"1.0"}', (400, "$.id is missing (CloudEvents: REQUIRED); $.source is missing")),
        (HEADERS, b"x" * 1001, (413, "an event may have at most 1000 bytes")),
    ],
)
async def test_what_is_malformed_is_refused_with_the_reason(
    door: httpx.AsyncClient, queue: Queue, headers: dict[str, str], body: bytes, refusal: tuple[int, str]
) -> None:
    """4xx, the rule in the body, and nothing is kept."""
    answer = await door.post("/ns/b", headers=headers, content=body)
    assert answer.status_code == refusal[0]
    assert refusal[1] in answer.text
    assert queue.pending() == []


async def test_other_doors(door: httpx.AsyncClient) -> None:
    """A Broker that is not there, another method, and the probe."""
    assert (await door.post("/ns/c", headers=HEADERS)).status_code == 404
    assert (await door.post("/", headers=HEADERS)).status_code == 404
    assert (await door.get("/ns/b")).status_code == 405
    assert (await door.get("/healthz")).status_code == 200


async def test_a_full_queue_says_when_to_come_back(door: httpx.AsyncClient) -> None:
    """503 with Retry-After, which senders repeat."""
    answers = [await door.post("/ns/b", headers=HEADERS) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 503]
    assert answers[2].headers["retry-after"] == "1"
