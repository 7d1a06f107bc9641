"""
The checks. Each does to the pipeline what it is named after, and says what it saw.

An answer counts as failed under load when it is none, wrong, or lacks a hop: a pipeline that merely falls back has noticed.
"""

import asyncio
import json
import ssl
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from chassis.wire import cloudevents
from chassis.wire.cloudevents import CloudEvent
from recsys.contracts import events
from tools.acceptance.platforms import Address, Platform, renew
from tools.bench.closed_loop import Door, Outcome, ask_recommend, run_callers

FUNCTIONS = ("extract-features", "rank-items", "recommend")
_SOURCE = "/run.sh/acceptance"
_MAX_SCALE = "autoscaling.knative.dev/max-scale"
_MIN_SCALE = "autoscaling.knative.dev/min-scale"
_LOOK_EVERY_S = 0.5


@dataclass(frozen=True)
class Finding:
    """Whether a check holds, and what was seen."""

    check: str
    holds: bool
    seen: str


@dataclass(frozen=True)
class Pace:
    """
    How hard and how long.

    Attributes:
        callers: At a time while it scales; half as many, each with pauses, while something is done to it.
        load_s: How long the load lasts.
        shrink_s: How long it may take to scale in again.
        event_s: How long an event may take to show.
    """

    callers: int = 40
    load_s: float = 60.0
    shrink_s: float = 180.0
    event_s: float = 10.0


class Acceptance:
    """
    Checks one pipeline.

    Args:
        platform: What it runs on.
        door: Where recommend is asked.
        token: Bearer token for recommend, if it wants one.
        trust: Whose certificates are believed, where a door has HTTPS; None for the system's.
        pace: How hard and how long.
        users: How many the pipeline knows: user_1, user_2, ...
        tell: Where progress goes.
    """

    def __init__(
        self,
        platform: Platform,
        door: Address,
        *,
        token: str | None,
        trust: ssl.SSLContext | None = None,
        pace: Pace,
        users: int,
        tell: Callable[[str], None],
    ) -> None:
        self._platform = platform
        self._door = door
        self._authorization = [(b"authorization", b"Bearer " + token.encode("latin-1"))] if token else []
        self._pace = pace
        self._users = users
        self._tell = tell
        self._trust = trust or ssl.create_default_context()
        self._client = httpx.Client(timeout=10.0, trust_env=False, verify=self._trust)
        self.checks: Mapping[str, Callable[[], Finding]] = {
            "ready": self.ready,
            "answer": self.answer,
            "interaction": self.interaction,
            "reply": self.reply,
            "scale": self.scale,
            "update": self.update,
            "end": self.end,
        }

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def ready(self) -> Finding:
        """Every Service is ready."""
        states = {name: _condition(self._platform.kn.service(name)) for name in FUNCTIONS}
        return Finding("ready", set(states.values()) == {"True"}, _listed(states))

    def answer(self) -> Finding:
        """An answer comes, with both hops in it."""
        answer, took_ms = self._ask({"user_id": "user_42", "top_k": 5})
        holds = len(answer["recommendations"]) == 5 and "degraded" not in answer
        return Finding("answer", holds, f"{took_ms:.1f} ms: {json.dumps(answer)}")

    def interaction(self) -> Finding:
        """An interaction handed to the Broker is seen in the user's next recommendation: the item is not shown again."""
        user = f"acceptance_{uuid.uuid4().hex[:8]}"
        before = _items(self._ask({"user_id": user, "top_k": 5})[0])
        event = _event(events.INTERACTION, {"user_id": user, "kind": "purchase", "item_id": before[0]})
        began = time.monotonic()
        self._post(self._platform.broker(), cloudevents.write_binary(event), event.data)
        while (took_s := time.monotonic() - began) < self._pace.event_s:
            after = _items(self._ask({"user_id": user, "top_k": 5})[0])
            if before[0] not in after:
                return Finding("interaction", True, f"{before[0]} is gone after {took_s:.2f} s: {after}")
            time.sleep(0.05)
        return Finding("interaction", False, f"{before[0]} is still there after {took_s:.0f} s: {after}")

    def reply(self) -> Finding:
        """A request event is answered by the event that a Broker would take as its reply."""
        event = _event(events.REQUESTED, {"user_id": "user_42", "top_k": 5})
        answer = self._post(self._door, [*cloudevents.write_binary(event), *self._authorization], event.data)
        kind, cause = answer.headers.get("ce-type"), answer.headers.get("ce-causationid")
        holds = kind == events.COMPLETED and cause == event.id and bool(answer.json()["recommendations"])
        return Finding("reply", holds, f"{answer.status_code}, {kind} because of {cause}")

    def scale(self) -> Finding:
        """rank-items scales out to its limit under load and in again after it; no request fails."""
        least, most = _scale(self._platform.kn.service("rank-items"))
        began = time.monotonic()
        grown: dict[int, float] = {}
        with self._load(self._pace.callers) as load:
            while not load.done():
                grown.setdefault(len(self._platform.instances("rank-items")), time.monotonic() - began)
                time.sleep(_LOOK_EVERY_S)
        outcome = load.result()
        ended = time.monotonic()
        while (left := len(self._platform.instances("rank-items"))) > least:
            if time.monotonic() - ended > self._pace.shrink_s:
                break
            time.sleep(_LOOK_EVERY_S)
        shrunk_s = time.monotonic() - ended
        steps = ", ".join(f"{count} after {seconds:.0f} s" for count, seconds in sorted(grown.items()))
        holds = max(grown) >= most and left <= least and not outcome.errors
        return Finding("scale", holds, f"{steps}; {left} again {shrunk_s:.0f} s after; {_told(outcome)}")

    def update(self) -> Finding:
        """A new revision of each function takes over under load; no request fails."""
        return self._disturb("update", lambda service: renew(self._platform, service))

    def end(self) -> Finding:
        """An instance of each function is told to end under load, and replaced; no request fails."""

        def replace(service: str) -> None:
            before = self._platform.instances(service)
            self._platform.end(before[-1])
            # A replacement is another one than those that were there.
            deadline = time.monotonic() + self._pace.load_s
            while not set(self._platform.instances(service)) - set(before):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{before[-1]} of {service} has not been replaced")
                time.sleep(_LOOK_EVERY_S)

        return self._disturb("end", replace)

    def _disturb(self, check: str, do: Callable[[str], None]) -> Finding:
        took: dict[str, str] = {}
        with self._load(self._pace.callers // 2, pause_s=0.05) as load:
            # It is to meet a pipeline that is busy.
            time.sleep(min(5.0, self._pace.load_s / 5))
            for service in FUNCTIONS:
                began = time.monotonic()
                do(service)
                took[service] = f"{time.monotonic() - began:.1f} s"
            in_time = not load.done()
        outcome = load.result()
        late = "" if in_time else "; the load ended before it was done"
        return Finding(check, in_time and not outcome.errors, f"{_listed(took)}{late}; {_told(outcome)}")

    @contextmanager
    def _load(self, callers: int, *, pause_s: float = 0.0) -> Iterator["Future[Outcome]"]:
        """Have so many callers ask, from the first request on counted; the block's end waits for theirs."""
        seconds = self._pace.load_s
        parts = urlsplit(self._door.url)
        secure = parts.scheme == "https"
        door = Door(parts.hostname or "", parts.port or (443 if secure else 80), self._trust if secure else None)
        headers = [name + b": " + value for name, value in self._authorization]
        work = ask_recommend(self._users, host=self._door.host.encode("latin-1"), headers=headers)
        with ThreadPoolExecutor(1, thread_name_prefix="load") as pool:
            self._tell(f"{callers} callers for {seconds:.0f} s")
            load = pool.submit(
                asyncio.run,
                run_callers(door, callers=callers, seconds=seconds, pause_s=pause_s, work=work, warm_up_share=0.0),
            )
            yield load

    def _ask(self, body: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
        began = time.monotonic()
        headers = [(b"content-type", b"application/json"), *self._authorization]
        answer = self._post(self._door, headers, json.dumps(body).encode())
        return answer.json(), (time.monotonic() - began) * 1000

    def _post(self, to: Address, headers: list[tuple[bytes, bytes]], body: bytes) -> httpx.Response:
        answer = self._client.post(to.url, headers=[(b"host", to.host.encode("latin-1")), *headers], content=body)
        answer.raise_for_status()
        return answer


def _event(type_: str, data: Mapping[str, Any]) -> CloudEvent:
    return CloudEvent(id=str(uuid.uuid4()), source=_SOURCE, type=type_, data=json.dumps(data).encode())


def _items(answer: Mapping[str, Any]) -> list[str]:
    return [each["item_id"] for each in answer["recommendations"]]


def _condition(service: Mapping[str, Any]) -> str:
    conditions = {each["type"]: each["status"] for each in service["status"].get("conditions", ())}
    return str(conditions.get("Ready", "Unknown"))


def _scale(service: Mapping[str, Any]) -> tuple[int, int]:
    """Return the least and the most instances a Service may have."""
    annotations = service["spec"]["template"]["metadata"]["annotations"]
    return int(annotations.get(_MIN_SCALE, 0)), int(annotations[_MAX_SCALE])


def _listed(words: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {word}" for name, word in words.items())


def _told(outcome: Outcome) -> str:
    wrong = f", the first: {outcome.first_error}" if outcome.errors else ""
    return f"{outcome.errors} of {outcome.requests} failed at {outcome.rps:.0f} a second, p50 {outcome.p50_ms:.1f} ms{wrong}"
