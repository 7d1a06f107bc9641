"""Sends the same request to several addresses, and turns each response into a `TrialAnswer`."""

import http.client
import itertools
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from chassis.receipt import parse_receipt
from tools.rollout.comparison import RolloutTrial, TrialAnswer, ranking

TIMEOUT_S = 10.0


@dataclass
class TrialClient:
    """
    A client of one address, with a kept connection for each thread.

    Args:
        url: The address; a name below `localhost` is this machine (RFC 6761).
        gateway: Address to connect to instead: names of a cluster resolve only inside it. The gateway finds the name in
            *url* in Host and, with HTTPS, in the handshake of TLS.
        token: Bearer token; None for no authorization.
        trust: Trusted certificate authorities; None for the system's.
    """

    url: str
    gateway: str | None = None
    token: str | None = None
    trust: ssl.SSLContext | None = None
    _kept: threading.local = field(default_factory=threading.local)
    _opened: list[http.client.HTTPConnection] = field(default_factory=list)

    def close(self) -> None:
        """Close every thread's connection."""
        for connection in self._opened:
            connection.close()

    def ask(self, body: bytes) -> TrialAnswer:
        """Post *body*; any failure becomes the fault of the answer."""
        began = time.monotonic()

        def took() -> float:
            return (time.monotonic() - began) * 1000

        try:
            status, headers, content = self._post(body)
        except (OSError, http.client.HTTPException) as error:
            return TrialAnswer(took(), fault=f"no answer ({type(error).__name__})")
        milliseconds = took()
        revision = parse_receipt(headers.get("Server-Timing", ""))[1].get("rev")
        if status != http.client.OK:
            return TrialAnswer(milliseconds, fault=f"status {status}", revision=revision)
        try:
            decoded = json.loads(content)
            ranked = ranking(decoded)
        except (ValueError, LookupError, TypeError):
            return TrialAnswer(milliseconds, fault="an unreadable body", revision=revision)
        fault = "a degraded answer" if isinstance(decoded, dict) and decoded.get("degraded") else None
        return TrialAnswer(milliseconds, fault=fault, ranking=ranked, revision=revision)

    def fetch(self, body: object) -> Any:
        """
        Post *body* as JSON; return the decoded answer.

        Raises:
            OSError: No answer came, or its status is not 200.
        """
        try:
            status, _, content = self._post(json.dumps(body).encode())
            decoded = json.loads(content)
        except (http.client.HTTPException, ValueError) as error:
            raise OSError(f"{self.url} did not answer: {error!r}") from error
        if status != http.client.OK:
            raise OSError(f"{self.url} answered {status}")
        return decoded

    def _post(self, body: bytes) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection: http.client.HTTPConnection | None = getattr(self._kept, "connection", None)
        if connection is not None:
            try:
                return self._send(connection, body)
            except (ConnectionError, http.client.HTTPException):
                # The server may close an idle connection; a new connection that fails is a fault.
                connection.close()
        self._kept.connection = None
        connection = self._connect()
        self._opened.append(connection)
        try:
            answer = self._send(connection, body)
        except BaseException:
            connection.close()
            raise
        self._kept.connection = connection
        return answer

    def _send(self, connection: http.client.HTTPConnection, body: bytes) -> tuple[int, http.client.HTTPMessage, bytes]:
        headers = {"Content-Type": "application/json", "Host": urlsplit(self.url).netloc}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        connection.request("POST", urlsplit(self.url).path or "/", body, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()

    def _connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.gateway or self.url)
        host = parts.hostname or ""
        address = "127.0.0.1" if host == "localhost" or host.endswith(".localhost") else host
        if parts.scheme == "https":
            trust = self.trust or ssl.create_default_context()
            return _NamedConnection(address, parts.port, name=urlsplit(self.url).hostname or host, trust=trust)
        return http.client.HTTPConnection(address, parts.port, timeout=TIMEOUT_S)


class _NamedConnection(http.client.HTTPSConnection):
    """A connection with TLS to a server that has a certificate for another name than its address."""

    def __init__(self, host: str, port: int | None, *, name: str, trust: ssl.SSLContext) -> None:
        super().__init__(host, port, timeout=TIMEOUT_S, context=trust)
        self._name, self._trust = name, trust

    def connect(self) -> None:
        """Connect, and check that the certificate is for the name."""
        http.client.HTTPConnection.connect(self)
        self.sock = self._trust.wrap_socket(self.sock, server_hostname=self._name)


MakeClient = Callable[[Mapping[str, Any], str | None], TrialClient]


@dataclass(frozen=True)
class TrialClients:
    """Clients of the three addresses of a Service during a rollout."""

    current: TrialClient
    candidate: TrialClient
    live: TrialClient

    def close(self) -> None:
        """Close all connections."""
        for client in (self.current, self.candidate, self.live):
            client.close()

    def try_once(self, body: bytes, *, candidate_first: bool) -> RolloutTrial:
        """Send one request to all three; the callers alternate the order, because the first finds colder caches."""
        first, second = (self.candidate, self.current) if candidate_first else (self.current, self.candidate)
        one, other = first.ask(body), second.ask(body)
        current, candidate = (other, one) if candidate_first else (one, other)
        return RolloutTrial(current=current, candidate=candidate, live=self.live.ask(body))


def run_trials(
    clients: TrialClients,
    bodies: Sequence[bytes],
    *,
    requests: int,
    least_s: float,
    callers: int,
    stop: Callable[[Sequence[RolloutTrial]], bool],
) -> list[RolloutTrial]:
    """
    Make at least *requests* trials in at least *least_s* seconds, *callers* of them at a time.

    The trials end early when *stop* returns true after a round of *callers*.
    """
    trials: list[RolloutTrial] = []
    wanted = itertools.cycle(bodies)
    until = time.monotonic() + least_s
    with ThreadPoolExecutor(callers, thread_name_prefix="caller") as pool:
        while (len(trials) < requests or time.monotonic() < until) and not stop(trials):
            number = len(trials)
            # Spread the trials over the step, so that a long step does not flood the Service.
            pause = (until - time.monotonic()) / max(1, (requests - number) / callers)
            futures: list[Future[RolloutTrial]] = [
                pool.submit(clients.try_once, next(wanted), candidate_first=bool((number + offset) % 2))
                for offset in range(callers)
            ]
            began = time.monotonic()
            trials += [future.result() for future in futures]
            time.sleep(max(0.0, min(1.0, pause - (time.monotonic() - began))))
    return trials


def make_bodies(service: str, users: Sequence[str], *, top_k: int, features: TrialClient | None) -> Iterator[bytes]:
    """
    Yield a request of *service* for each of *users*.

    Args:
        service: The function's Service.
        users: User ids.
        top_k: How many items are compared.
        features: Address of extract-features, whose answers make the requests of rank-items.
    """
    for user in users:
        body: Mapping[str, Any]
        if service.startswith("extract-features"):
            body = {"user_id": user}
        elif service.startswith("rank-items"):
            if features is None:
                raise OSError(
                    "rank-items needs the answers of extract-features, which is not there; give requests with --body-file"
                )
            known = features.fetch({"user_id": user})
            body = {"features": known["features"], "history": known["history"], "top_k": top_k}
        else:
            body = {"user_id": user, "top_k": top_k}
        yield json.dumps(body).encode()
