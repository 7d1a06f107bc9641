"""Sending the same request to several doors, and what comes back as an `Answer`."""

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
from tools.rollout.comparing import Answer, Trial, ranking

TIMEOUT_S = 10.0


@dataclass
class Door:
    """
    Somewhere requests can be posted to, over connections that are kept, one for each thread.

    Args:
        url: Its address; a name below `localhost` is this machine (RFC 6761).
        gateway: Where to connect instead, with the name in *url* as Host: names inside a cluster are known there alone.
        token: Bearer token, if one is wanted.
        trust: Whose certificates are believed; None for the system's.
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

    def ask(self, body: bytes) -> Answer:
        """Post *body*; whatever goes wrong is a fault of the answer."""
        began = time.monotonic()

        def took() -> float:
            return (time.monotonic() - began) * 1000

        try:
            status, headers, content = self._post(body)
        except (OSError, http.client.HTTPException) as error:
            return Answer(took(), fault=f"no answer ({type(error).__name__})")
        milliseconds = took()
        revision = parse_receipt(headers.get("Server-Timing", ""))[1].get("rev")
        if status != http.client.OK:
            return Answer(milliseconds, fault=f"status {status}", revision=revision)
        try:
            decoded = json.loads(content)
            ranked = ranking(decoded)
        except (ValueError, LookupError, TypeError):
            return Answer(milliseconds, fault="an unreadable body", revision=revision)
        fault = "a degraded answer" if isinstance(decoded, dict) and decoded.get("degraded") else None
        return Answer(milliseconds, fault=fault, ranking=ranked, revision=revision)

    def fetch(self, body: object) -> Any:
        """
        Post *body* as JSON; return the decoded answer.

        Raises:
            OSError: there was none, or one with another status than 200.
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
                # The other side may close what is idle; a fresh connection that fails is a fault.
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
            return http.client.HTTPSConnection(address, parts.port, timeout=TIMEOUT_S, context=trust)
        return http.client.HTTPConnection(address, parts.port, timeout=TIMEOUT_S)


@dataclass(frozen=True)
class Doors:
    """The three ways to a Service during a rollout."""

    current: Door
    candidate: Door
    live: Door

    def close(self) -> None:
        """Close all connections."""
        for door in (self.current, self.candidate, self.live):
            door.close()

    def try_once(self, body: bytes, *, candidate_first: bool) -> Trial:
        """Put one request to all three; who comes first alternates, for the first finds colder caches."""
        first, second = (self.candidate, self.current) if candidate_first else (self.current, self.candidate)
        one, other = first.ask(body), second.ask(body)
        current, candidate = (other, one) if candidate_first else (one, other)
        return Trial(current=current, candidate=candidate, live=self.live.ask(body))


def run_trials(
    doors: Doors,
    bodies: Sequence[bytes],
    *,
    requests: int,
    least_s: float,
    callers: int,
    stop: Callable[[Sequence[Trial]], bool],
) -> list[Trial]:
    """
    Try *requests* times at least, for *least_s* seconds at least, with so many *callers* at a time.

    Ends early where *stop* says so, which is asked after each round of *callers*.
    """
    trials: list[Trial] = []
    wanted = itertools.cycle(bodies)
    until = time.monotonic() + least_s
    with ThreadPoolExecutor(callers, thread_name_prefix="caller") as pool:
        while (len(trials) < requests or time.monotonic() < until) and not stop(trials):
            number = len(trials)
            # Spread over the time that a step takes, so that a long step is no flood.
            pause = (until - time.monotonic()) / max(1, (requests - number) / callers)
            futures: list[Future[Trial]] = [
                pool.submit(doors.try_once, next(wanted), candidate_first=bool((number + offset) % 2))
                for offset in range(callers)
            ]
            began = time.monotonic()
            trials += [future.result() for future in futures]
            time.sleep(max(0.0, min(1.0, pause - (time.monotonic() - began))))
    return trials


def make_bodies(service: str, users: Sequence[str], *, top_k: int, features: Door | None) -> Iterator[bytes]:
    """
    Yield a request for each of *users*, as *service* wants it.

    Args:
        service: The function's Service.
        users: Who.
        top_k: How many items are compared.
        features: Where extract-features answers; rank-items' requests are made of its answers.
    """
    for user in users:
        body: Mapping[str, Any]
        if service.startswith("extract-features"):
            body = {"user_id": user}
        elif service.startswith("rank-items"):
            if features is None:
                raise OSError("rank-items' requests are made of extract-features' answers, and that is not there")
            known = features.fetch({"user_id": user})
            body = {"features": known["features"], "history": known["history"], "top_k": top_k}
        else:
            body = {"user_id": user, "top_k": top_k}
        yield json.dumps(body).encode()
