"""Requests to a function, and the judgement of its answers."""

import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest
import trustme

from tests.http_server import HttpHandler, HttpServer
from tools.rollout.comparison import RolloutTrial
from tools.rollout.trials import TrialClient, TrialClients, make_bodies, run_trials


class Server(HttpServer):
    """Answer as the attributes say, and record the requests."""

    def __init__(self) -> None:
        super().__init__(Handler)
        self.status, self.body, self.closes = 200, b'{"items": [{"item_id": "a", "score": 1.0}]}', False
        self.told: list[tuple[str | None, str | None, bytes]] = []
        self.connections = 0


class Handler(HttpHandler):
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def post(self) -> None:
        self.server.told.append((self.headers["Host"], self.headers["Authorization"], self.body()))
        timing = 'total;dur=1.0, rev;desc="rank-items-00002"'
        self.answer(self.server.status, self.server.body, Server_Timing=timing)
        # The header is not sent, as by a server that closes an idle connection.
        self.close_connection = self.server.closes


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def client(request: pytest.FixtureRequest) -> Iterator[Callable[..., TrialClient]]:
    """Return a function that opens doors, and close them at the end."""
    with ExitStack() as stack:
        yield lambda *words, **more: stack.enter_context(closing(TrialClient(*words, **more)))


def test_a_valid_answer_is_read(server, client):
    """The answer holds the ranking, the revision and the latency, and the connection is reused."""
    opened = client(server.url)
    answer = opened.ask(b"{}")
    assert (answer.fault, answer.ranking, answer.revision) == (None, ("a",), "rank-items-00002")
    assert answer.milliseconds > 0
    opened.ask(b"{}")
    assert server.connections == 1


@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [
        (503, b"", "status 503"),
        (200, b"<html>", "an unreadable body"),
        (200, b'{"items": [{}]}', "an unreadable body"),
        (200, b'{"recommendations": [], "degraded": ["no features"]}', "a degraded answer"),
    ],
)
def test_an_invalid_answer_is_a_fault(server, client, status, body, fault):
    """Error statuses, unreadable bodies and answers marked as degraded are faults."""
    server.status, server.body = status, body
    answer = client(server.url).ask(b"{}")
    assert (answer.fault, answer.revision) == (fault, "rank-items-00002")


def test_a_refused_connection_is_a_fault(free_port):
    """A refused connection is a fault of the answer, but an error when features are fetched."""
    assert TrialClient(f"http://127.0.0.1:{free_port}").ask(b"{}").fault == "no answer (ConnectionRefusedError)"
    with pytest.raises(ConnectionRefusedError):
        TrialClient(f"http://127.0.0.1:{free_port}").fetch({})


def test_a_connection_closed_while_idle_is_reopened(server, client):
    """The door opens the connection again, once."""
    server.closes, opened = True, client(server.url)
    assert [opened.ask(b"{}").fault for _ in range(3)] == [None] * 3
    assert server.connections == 3


def test_cluster_names_are_requested_from_the_gateway(server, client):
    """The door connects to the gateway and sends the cluster name in Host, together with the token."""
    opened = client("http://candidate-rank-items.recsys.svc.cluster.local", gateway=server.url, token="secret")
    assert opened.ask(b"1").fault is None
    assert server.told == [("candidate-rank-items.recsys.svc.cluster.local", "Bearer secret", b"1")]


def test_a_gateway_with_tls_is_asked_for_the_certificate_of_the_name(server, client):
    """The handshake names the Service, as gateways choose certificates by it, and the certificate must be for it."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("recommend.shop.test").configure_cert(context)
    asked: list[str | None] = []
    context.sni_callback = lambda _, name, __: asked.append(name)
    server.use_tls(context)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    gateway = f"https://127.0.0.1:{server.server_port}"
    assert client("https://recommend.shop.test", gateway=gateway, trust=trust).ask(b"1").fault is None
    assert (asked, server.told[0][0]) == (["recommend.shop.test"], "recommend.shop.test")
    refused = client("https://other.shop.test", gateway=gateway, trust=trust).ask(b"1").fault
    assert refused == "no answer (SSLCertVerificationError)"


def test_localhost_names_mean_this_machine(server, client):
    """The door connects to 127.0.0.1 for names below localhost, as localkn writes them, without a resolver."""
    opened = client(f"http://candidate-front.default.localhost:{server.server_port}")
    assert opened.ask(b"1").fault is None
    assert server.told[0][0] == f"candidate-front.default.localhost:{server.server_port}"


def test_trials_alternate_and_can_stop_early(server, client):
    """Each request goes to all three doors in alternating order, and the stop condition ends the trials early."""
    clients = TrialClients(client(server.url), client(server.url), client(server.url))
    trials = run_trials(clients, [b"1", b"2"], requests=4, least_s=0.0, callers=2, stop=lambda _: False)
    assert len(trials) == 4
    assert all(isinstance(trial, RolloutTrial) for trial in trials)
    assert sorted(body for _, _, body in server.told) == [b"1"] * 6 + [b"2"] * 6
    early = run_trials(clients, [b"1"], requests=100, least_s=60.0, callers=2, stop=lambda trials: len(trials) >= 2)
    assert len(early) == 2


def test_requests_are_built_for_users(server, client):
    """Each function gets the request that it understands; those for rank_items contain real features."""
    server.body = json.dumps({"user_id": "u", "features": {"f": 1}, "history": ["a"]}).encode()
    features = client(server.url)
    bodies = {
        service: [json.loads(body) for body in make_bodies(service, ["u"], top_k=3, features=features)]
        for service in ("extract-features", "rank-items", "recommend")
    }
    assert bodies == {
        "extract-features": [{"user_id": "u"}],
        "rank-items": [{"features": {"f": 1}, "history": ["a"], "top_k": 3}],
        "recommend": [{"user_id": "u", "top_k": 3}],
    }
    with pytest.raises(OSError, match="is not there"):
        next(make_bodies("rank-items", ["u"], top_k=3, features=None))


@pytest.mark.parametrize(("status", "body"), [(500, b"{}"), (200, b"<html>")])
def test_missing_features_are_an_error(server, client, status, body):
    """A features function that fails is an error, because the rollout has not started yet."""
    server.status, server.body = status, body
    with pytest.raises(OSError, match="answer"):
        client(server.url).fetch({})
