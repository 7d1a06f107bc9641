"""
The checks of the acceptance test. Each check uses or disturbs the pipeline and returns what it observed.

Under load, a request fails if no answer arrives, or if the answer is wrong or degraded. A degraded answer counts as a
failure because a disturbance must not be visible to users. The end of a function's only instance is the exception:
recommend waits half a second for another and then answers without the function, which keeps callers from queueing.
"""

import asyncio
import json
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from chassis.wire import cloudevents
from chassis.wire.cloudevents import CloudEvent
from kubeyaml.annotations import SCALING, annotations_of
from recsys.contracts import events
from tools.acceptance.deployments import Address, Deployment, create_revision
from tools.bench.closed_loop import LoopOutcome, ServerAddress, Work, request_recommendations, run_callers
from tools.cluster.reader import condition

FUNCTIONS = ("extract-features", "rank-items", "recommend")
_SOURCE = "/run.sh/acceptance"
_MAX_SCALE, _MIN_SCALE, _TARGET = f"{SCALING}/max-scale", f"{SCALING}/min-scale", f"{SCALING}/target"
# Ranking the demo's catalogue takes a millisecond, and a request holds up to four calls, so even forty callers have few
# requests in flight.
_LOW_TARGET = "0.1"
_POLL_S = 0.5


@dataclass(frozen=True)
class CheckResult:
    """The result of a check: whether it holds, and what was observed."""

    check: str
    holds: bool
    seen: str


@dataclass(frozen=True)
class LoadPace:
    """
    Strength of the load, and time limits.

    Attributes:
        callers: Concurrent callers of the check `scale`. `update` and `end` use half as many, with pauses.
        load_s: Shortest duration of each load.
        shrink_s: Time limit for scaling in after the load.
        event_s: Time limit until an event affects the recommendations.
    """

    callers: int = 40
    load_s: float = 60.0
    shrink_s: float = 180.0
    event_s: float = 10.0


@dataclass(frozen=True)
class BackgroundLoad:
    """Callers at work: the outcome that they will have, the event that lets them end, and permitted degraded answers."""

    outcome: "Future[LoopOutcome]"
    may_end: threading.Event
    degraded: list[bytes]


class Acceptance:
    """
    Checks one pipeline.

    Args:
        deployment: The pipeline's Services and instances.
        address: Address of recommend.
        token: Bearer token for recommend; None if it requires none.
        trust: TLS context that verifies certificates; None for the system's certificates.
        pace: Strength of the load, and time limits.
        users: Ids of known users.
        tell: Prints a line of progress.
    """

    def __init__(
        self,
        deployment: Deployment,
        address: Address,
        *,
        token: str | None,
        trust: ssl.SSLContext | None = None,
        pace: LoadPace,
        users: Sequence[str],
        tell: Callable[[str], None],
    ) -> None:
        self._deployment = deployment
        self._address = address
        self._authorization = [(b"authorization", b"Bearer " + token.encode("latin-1"))] if token else []
        self.pace = pace
        self._users = users
        self._tell = tell
        self._trust = trust or ssl.create_default_context()
        self._client = httpx.Client(timeout=10.0, trust_env=False, verify=self._trust)
        checks = (self.ready, self.answer, self.interaction, self.reply, self.scale, self.update, self.end)
        self.checks: Mapping[str, Callable[[], CheckResult]] = {check.__name__: check for check in checks}

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def ready(self) -> CheckResult:
        """Check that every Service is ready."""
        states = {name: condition(self._deployment.kn.service(name))["status"] for name in FUNCTIONS}
        return CheckResult("ready", set(states.values()) == {"True"}, _join(states))

    def answer(self) -> CheckResult:
        """Check that recommend answers and is not degraded."""
        answer, took_ms = self._recommend({"user_id": self._users[0], "top_k": 5})
        holds = len(answer["recommendations"]) == 5 and "degraded" not in answer
        return CheckResult("answer", holds, f"{took_ms:.1f} ms: {json.dumps(answer)}")

    def interaction(self) -> CheckResult:
        """Check that recommend no longer returns an item after an interaction with it was sent to the Broker."""
        user = f"acceptance_{uuid.uuid4().hex[:8]}"
        before = _items(self._recommend({"user_id": user, "top_k": 5})[0])
        event = _event(events.INTERACTION, {"user_id": user, "kind": "purchase", "item_id": before[0]})
        began = time.monotonic()
        self._post(self._deployment.broker(), cloudevents.write_binary(event), event.data)
        while (took_s := time.monotonic() - began) < self.pace.event_s:
            after = _items(self._recommend({"user_id": user, "top_k": 5})[0])
            if before[0] not in after:
                return CheckResult("interaction", True, f"{before[0]} disappeared after {took_s:.2f} s: {after}")
            time.sleep(0.05)
        return CheckResult("interaction", False, f"{before[0]} is still recommended after {took_s:.0f} s: {after}")

    def reply(self) -> CheckResult:
        """Check that recommend answers a request event with a reply event."""
        event = _event(events.REQUESTED, {"user_id": self._users[0], "top_k": 5})
        answer = self._post(self._address, [*cloudevents.write_binary(event), *self._authorization], event.data)
        kind, cause = answer.headers.get("ce-type"), answer.headers.get("ce-causationid")
        holds = kind == events.COMPLETED and cause == event.id and bool(answer.json()["recommendations"])
        return CheckResult("reply", holds, f"status {answer.status_code}, type {kind}, causation id {cause}")

    def scale(self) -> CheckResult:
        """Check that rank-items scales to its maximum under load and back after it, and that no request fails."""
        with self._low_target("rank-items"):
            return self._scale_out_and_in()

    @contextmanager
    def _low_target(self, service: str) -> Iterator[None]:
        """Lower the target of *service* until the block ends, so that this load makes it scale out."""
        kn = self._deployment.kn
        before = annotations_of(kn.service(service)["spec"]["template"]).get(_TARGET)
        kn.update(service, "--annotation-revision", f"{_TARGET}={_LOW_TARGET}")
        try:
            yield
        finally:
            restore = ("--annotation-revision", f"{_TARGET}={before}") if before else ("--annotation", f"{_TARGET}-")
            kn.update(service, *restore)

    def _scale_out_and_in(self) -> CheckResult:
        least, most = _scale(self._deployment.kn.service("rank-items"))
        began = time.monotonic()
        reached: dict[int, float] = {}
        with self._load(self.pace.callers) as load:
            load.may_end.set()
            while not (reached and load.outcome.done()):
                reached.setdefault(len(self._deployment.instances("rank-items")), time.monotonic() - began)
                time.sleep(_POLL_S)
        outcome = load.outcome.result()
        ended = time.monotonic()
        while (left := len(self._deployment.instances("rank-items"))) > least:
            if time.monotonic() - ended > self.pace.shrink_s:
                break
            time.sleep(_POLL_S)
        shrunk_s = time.monotonic() - ended
        steps = ", ".join(f"{count} after {seconds:.0f} s" for count, seconds in sorted(reached.items()))
        holds = max(reached) >= most and left <= least and not outcome.errors
        seen = f"instances: {steps}; {left} left {shrunk_s:.0f} s after the load; {_load_summary(outcome)}"
        return CheckResult("scale", holds, seen)

    def update(self) -> CheckResult:
        """Check that no request fails while a new revision of each function takes over under load."""
        return self._disturb("update", lambda service: create_revision(self._deployment, service))

    def end(self) -> CheckResult:
        """
        Check that no request fails while an instance of each function is terminated and replaced under load.

        The autoscaler may scale in at the same time. As many instances as the Service's minimum then are enough. Answers
        may be degraded if a function has only one instance.
        """
        alone = any(len(self._deployment.instances(service)) == 1 for service in FUNCTIONS)

        def replace(service: str) -> None:
            before = self._deployment.instances(service)
            least = max(1, _scale(self._deployment.kn.service(service))[0])
            self._deployment.terminate(before[-1])
            deadline = time.monotonic() + self.pace.load_s
            while not set(now := self._deployment.instances(service)) - set(before):
                if time.monotonic() > deadline:
                    # An instance that the autoscaler would have removed anyway gets no replacement.
                    if before[-1] not in now and len(now) >= least:
                        return
                    raise TimeoutError(f"{before[-1]} of {service} was not replaced within {self.pace.load_s:g} s")
                time.sleep(_POLL_S)

        return self._disturb("end", replace, may_degrade=alone)

    def _disturb(self, check: str, action: Callable[[str], None], *, may_degrade: bool = False) -> CheckResult:
        """Apply *action* to each function in turn while the pipeline is under load."""
        took: dict[str, str] = {}
        with self._load(self.pace.callers // 2, pause_s=0.05, may_degrade=may_degrade) as load:
            # Give the load time to reach every instance.
            time.sleep(min(5.0, self.pace.load_s / 5))
            for service in FUNCTIONS:
                began = time.monotonic()
                action(service)
                took[service] = f"{time.monotonic() - began:.1f} s"
        outcome = load.outcome.result()
        degraded = f"; {len(load.degraded)} were degraded, as a function had one instance" if load.degraded else ""
        return CheckResult(check, not outcome.errors, f"{_join(took)}; {_load_summary(outcome)}{degraded}")

    @contextmanager
    def _load(self, callers: int, *, pause_s: float = 0.0, may_degrade: bool = False) -> Iterator["BackgroundLoad"]:
        """Run *callers* against recommend in the background until the block ends, and at least for the load's time."""
        seconds = self.pace.load_s
        at = ServerAddress.of(self._address.url, trust=self._trust, name=self._address.name)
        headers = [name + b": " + value for name, value in self._authorization]
        full = request_recommendations(self._users, host=self._address.host.encode("latin-1"), headers=headers)
        degraded: list[bytes] = []

        def is_correct(status: int, body: bytes) -> bool:
            if may_degrade and status == httpx.codes.OK and b'"degraded"' in body:
                degraded.append(body)
                return True
            return full.is_correct(status, body)

        work = Work(full.request, is_correct)
        with ThreadPoolExecutor(1, thread_name_prefix="load") as pool:
            self._tell(f"{callers} callers for {seconds:.0f} s")
            may_end = threading.Event()
            calling = run_callers(
                at,
                callers=callers,
                seconds=seconds,
                pause_s=pause_s,
                work=work,
                warm_up_share=0.0,
                may_end=may_end.is_set,
            )
            try:
                yield BackgroundLoad(pool.submit(asyncio.run, calling), may_end, degraded)
            finally:
                may_end.set()

    def _recommend(self, body: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
        """Return the answer of recommend to *body*, and its latency in milliseconds."""
        began = time.monotonic()
        headers = [(b"content-type", b"application/json"), *self._authorization]
        answer = self._post(self._address, headers, json.dumps(body).encode())
        return answer.json(), (time.monotonic() - began) * 1000

    def _post(self, to: Address, headers: list[tuple[bytes, bytes]], body: bytes) -> httpx.Response:
        answer = self._client.post(
            to.url,
            headers=[(b"host", to.host.encode("latin-1")), *headers],
            content=body,
            extensions={"sni_hostname": to.name},
        )
        answer.raise_for_status()
        return answer


def _event(type_: str, data: Mapping[str, Any]) -> CloudEvent:
    return CloudEvent(id=str(uuid.uuid4()), source=_SOURCE, type=type_, data=json.dumps(data).encode())


def _items(answer: Mapping[str, Any]) -> list[str]:
    return [each["item_id"] for each in answer["recommendations"]]


def _scale(service: Mapping[str, Any]) -> tuple[int, int]:
    """Return the minimum and maximum number of instances of a Service."""
    annotations = annotations_of(service["spec"]["template"])
    return int(annotations.get(_MIN_SCALE, 0)), int(annotations[_MAX_SCALE])


def _join(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _load_summary(outcome: LoopOutcome) -> str:
    first = f", first failure: {outcome.first_error}" if outcome.errors else ""
    return (
        f"{outcome.errors} of {outcome.requests} requests failed at {outcome.rps:.0f} per second, "
        f"p50 {outcome.p50_ms:.1f} ms{first}"
    )
