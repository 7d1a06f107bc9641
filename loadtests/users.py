"""Locust users: they send the requests of `loadtests.traffic` and record the checked answers."""

import time
from collections.abc import Callable, Iterator
from typing import cast

import gevent
from gevent.pool import Pool
from locust import FastHttpUser, task
from locust.env import Environment
from locust.exception import StopUser

from loadtests.answers import AnswerVerdict, LoadAnswer
from loadtests.recorder import Recorder
from loadtests.traffic import JudgedRequest, Traffic

# Limit of the open loop. Further requests wait, and latency includes this wait.
MAX_IN_FLIGHT = 1000
_TIMEOUT_S = 10.0
_UNANSWERED = AnswerVerdict("no answer: the run ended")


class LoadEnvironment(Environment):
    """
    Locust's environment, extended by the objects that the users share.

    Attributes:
        traffic: Creates requests.
        recorder: Records answers.
        began: Start of the run on `time.perf_counter`.
        due_times: Open loop: due times of the requests, in seconds since the start.
        think_s: Closed loop: draws the pause before a user's next request.
    """

    traffic: Traffic
    recorder: Recorder
    began: float
    due_times: Iterator[float]
    think_s: Callable[[], float]


class LoadUser(FastHttpUser):
    """Sends requests, checks each answer and records the result."""

    abstract = True
    network_timeout = connection_timeout = _TIMEOUT_S
    insecure = False

    @property
    def load(self) -> LoadEnvironment:
        """The environment with its actual type."""
        return cast("LoadEnvironment", self.environment)

    def send(self, request: JudgedRequest, *, due: float) -> None:
        """Send a request. Its latency counts from *due*, a time of `time.perf_counter`."""
        with self.client.post(
            request.url,
            # The client sends bytes unchanged; its annotation allows only str.
            data=cast("str", request.body),
            headers=dict(request.headers),
            name=request.kind,
            catch_response=True,
        ) as response:
            now = time.perf_counter()
            response.request_meta["response_time"] = (now - due) * 1000
            error = getattr(response, "error", None)
            receipt = (response.headers or {}).get("server-timing") or ""
            verdict = request.judge(
                LoadAnswer(
                    response.status_code, response.content or b"", receipt, type(error).__name__ if error else ""
                )
            )
            self.load.recorder.note(request.kind, verdict, at_s=now - self.load.began, latency_s=now - due)
            if verdict.fault is None:
                response.success()
            else:
                response.failure(verdict.fault)


class ClosedLoopUser(LoadUser):
    """A user of the closed loop: sends a request, waits for the answer, pauses, and repeats."""

    def wait_time(self) -> float:
        """Return the pause before the next request, in seconds."""
        return self.load.think_s()

    @task
    def call(self) -> None:
        """Send one request."""
        self.send(self.load.traffic.draw(), due=time.perf_counter())


class OpenLoopUser(LoadUser):
    """The single user of the open loop: sends each request when it is due, without waiting for earlier answers."""

    concurrency = MAX_IN_FLIGHT

    @task
    def arrive(self) -> None:
        """Send all requests of the run, then wait for the last answers. Requests without an answer count as failed."""
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
