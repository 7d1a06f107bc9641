"""The hosts that a broker answers to."""

from pathlib import Path

import httpx
import pytest

from knbroker.broker import Broker
from knbroker.ingress import application
from knbroker.queue import Queue
from kubeyaml.eventing import Routing
from tests.knbroker.subscribers import Subscribers

pytestmark = pytest.mark.anyio


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
