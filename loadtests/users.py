"""Locust users: they carry out what `loadtests.traffic` makes and tell the recorder what came of it."""

import time
from collections.abc import Callable, Iterator
from typing import cast

import gevent
from gevent.pool import Pool
from locust import FastHttpUser, task
from locust.env import Environment
from locust.exception import StopUser

from loadtests.answers import Answer, Verdict
from loadtests.recording import Recorder
from loadtests.traffic import Exchange, Traffic

# So many requests of the open loop may be in flight; those beyond wait, and their waiting counts.
MAX_IN_FLIGHT = 1000
_TIMEOUT_S = 10.0
_UNANSWERED = Verdict("no answer: the run is over")


class LoadEnvironment(Environment):
    """
    Locust's environment, with what our users need.

    Attributes:
        traffic: Makes requests.
        recorder: Is told of answers.
        began: Start of the run on `time.perf_counter`.
        due_times: Of the open loop: seconds since the start.
        think_s: Of the closed loop: draws the pause before a user's next request.
    """

    traffic: Traffic
    recorder: Recorder
    began: float
    due_times: Iterator[float]
    think_s: Callable[[], float]


class Visitor(FastHttpUser):
    """Sends requests and has each answer judged."""

    abstract = True
    network_timeout = connection_timeout = _TIMEOUT_S
    insecure = False

    @property
    def load(self) -> LoadEnvironment:
        """The environment, as what it is."""
        return cast("LoadEnvironment", self.environment)

    def send(self, exchange: Exchange, *, due: float) -> None:
        """Send a request that was *due* then (on `time.perf_counter`); its latency counts from there."""
        with self.client.post(
            exchange.url,
            # Bytes go out as they are; only the annotation knows nothing of them.
            data=cast("str", exchange.body),
            headers=dict(exchange.headers),
            name=exchange.kind,
            catch_response=True,
        ) as response:
            now = time.perf_counter()
            response.request_meta["response_time"] = (now - due) * 1000
            error = getattr(response, "error", None)
            receipt = (response.headers or {}).get("server-timing") or ""
            verdict = exchange.judge(
                Answer(response.status_code, response.content or b"", receipt, type(error).__name__ if error else "")
            )
            self.load.recorder.note(exchange.kind, verdict, at_s=now - self.load.began, latency_s=now - due)
            if verdict.fault is None:
                response.success()
            else:
                response.failure(verdict.fault)


class Caller(Visitor):
    """Of the closed loop: waits for each answer, thinks, and asks again."""

    def wait_time(self) -> float:
        """Return the pause before the next request, seconds."""
        return self.load.think_s()

    @task
    def call(self) -> None:
        """Send one request."""
        self.send(self.load.traffic.draw(), due=time.perf_counter())


class Arrivals(Visitor):
    """Of the open loop: everybody there is. Sends each request when it is due, whatever became of the others."""

    concurrency = MAX_IN_FLIGHT

    @task
    def arrive(self) -> None:
        """Send all requests of the run, then wait for the last answers; those that never came are failures."""
        pool = Pool(MAX_IN_FLIGHT)
        for due_s in self.load.due_times:
            due = self.load.began + due_s
            gevent.sleep(max(0.0, due - time.perf_counter()))
            pool.spawn(self._send_due, due)
        pool.join(timeout=_TIMEOUT_S)
        for _ in range(len(pool)):
            now = time.perf_counter()
            self.load.recorder.note("returning", _UNANSWERED, at_s=now - self.load.began, latency_s=_TIMEOUT_S)
        raise StopUser

    def _send_due(self, due: float) -> None:
        self.load.recorder.note_late(time.perf_counter() - due)
        self.send(self.load.traffic.draw(), due=due)
