"""
Make the feature store unavailable under load, and check that recommend keeps answering and no event is lost.

Callers request recommendations and senders post events. Redis is paused (SIGSTOP) or killed (SIGKILL). After some
seconds it continues, or restarts from its append-only file.

    python -m tools.chaos.outage [--mode stop|kill] [--seconds 10]
"""

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from knbroker.client import DeliveryClient
from tools.bench.redis_server import RedisServer, redis_running
from tools.chaos.sender import Sender
from tools.chaos.traffic import InteractionEvent, count_differing, expected_records, make_events
from tools.running import RunningPipeline, pipeline_running

_BEFORE_S, _AFTER_S = 2.0, 6.0
_DRAIN_TIMEOUT_S = 60.0
_POLL_S = 0.05
_RECOVERY_S = 2.0
_SLOWEST_ANSWER_S = 10.0


@dataclass(frozen=True)
class OutageOutcome:
    """
    The result of a run. Times count from the moment Redis was available again.

    Attributes:
        mode: `stop` or `kill`.
        seconds: Duration of the outage.
        answers: Answers of recommend.
        not_200: Answers with another status than 200, and timeouts.
        degraded: Answers marked as degraded.
        slowest_ms: Latency of the slowest answer.
        recovery_s: Time of the last degraded answer; negative if all came before the end of the outage.
        events: Events that the broker accepted.
        failed_attempts: Deliveries that the broker retried.
        backlog: Pending deliveries when Redis was available again.
        backlog_drained_s: Time at which the backlog was empty.
        waiting: Deliveries still pending at the end.
        dead_letters: Deliveries that the broker gave up.
        wrong_users: Users whose record differs from the events.
    """

    mode: str
    seconds: float
    answers: int
    not_200: int
    degraded: int
    slowest_ms: float
    recovery_s: float
    events: int
    failed_attempts: int
    backlog: int
    backlog_drained_s: float
    waiting: int
    dead_letters: int
    wrong_users: int

    @property
    def nothing_lost(self) -> bool:
        """Whether every request was answered and every event was counted once, despite degraded answers."""
        return bool(self.degraded) and not (self.not_200 or self.waiting or self.dead_letters or self.wrong_users)

    @property
    def holds(self) -> bool:
        """Whether nothing was lost and the pipeline recovered within the time limit."""
        return self.nothing_lost and self.recovery_s <= _RECOVERY_S and self.backlog_drained_s <= _RECOVERY_S


@dataclass
class _TimedAnswer:
    """An answer of recommend, with the time it arrived and its latency."""

    at: float
    took_s: float
    ok: bool
    degraded: bool


class _Callers:
    """Callers that request recommendations in a closed loop and record every answer."""

    def __init__(self, url: str, *, users: int) -> None:
        self._url, self._users = url, users
        self._client = DeliveryClient(limit_bytes=2**20)
        self.answers: list[_TimedAnswer] = []

    async def run(self, number: int, *, pause_s: float) -> None:
        """Send requests until cancelled."""
        while True:
            number = (number + 7) % self._users
            body = json.dumps({"user_id": f"user_{number}"}).encode()
            began = time.monotonic()
            try:
                answer = await self._client.post(
                    self._url, headers=[("content-type", "application/json")], body=body, timeout_s=_SLOWEST_ANSWER_S
                )
                ok, degraded = answer.status == 200, b'"degraded"' in answer.body
            except httpx.TransportError:
                ok, degraded = False, False
            now = time.monotonic()
            self.answers.append(_TimedAnswer(now, now - began, ok, degraded))
            await asyncio.sleep(pause_s)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


async def run(
    pipeline: RunningPipeline, redis: RedisServer, *, mode: str, seconds: float, rate: float
) -> OutageOutcome:
    """Apply load, make Redis unavailable for *seconds*, wait for the deliveries, and compare the store with the events."""
    made = make_events(round(rate * (_BEFORE_S + seconds + _AFTER_S)), users=100, prefix=f"outage_{mode}", seed=1)
    sender, callers = Sender(pipeline.broker_url), _Callers(f"http://127.0.0.1:{pipeline.port}", users=500)
    before = (await asyncio.to_thread(pipeline.events))["triggers"]["default/interactions"]
    requesting = [asyncio.create_task(callers.run(number * 50, pause_s=0.02)) for number in range(4)]
    sending = asyncio.create_task(_send(sender, made, rate=rate))
    await asyncio.sleep(_BEFORE_S)
    await _interrupt(redis, mode=mode, seconds=seconds)
    available_at = time.monotonic()
    backlog, drained_s = await _watch_backlog(pipeline)
    await sending
    for task in requesting:
        task.cancel()
    await asyncio.wait(requesting)
    figures = await pipeline.until_delivered(within_s=_DRAIN_TIMEOUT_S)
    await sender.aclose()
    await callers.aclose()
    expected, found = expected_records(made), await pipeline.records(f"outage_{mode}_")
    trigger, answers = figures["triggers"]["default/interactions"], callers.answers
    degraded = [answer for answer in answers if answer.degraded]
    return OutageOutcome(
        mode=mode,
        seconds=seconds,
        answers=len(answers),
        not_200=sum(not answer.ok for answer in answers),
        degraded=len(degraded),
        slowest_ms=round(max(answer.took_s for answer in answers) * 1000, 1),
        recovery_s=round(max((answer.at - available_at for answer in degraded), default=0.0), 2),
        events=sender.accepted,
        failed_attempts=trigger["failed"] - before["failed"],
        backlog=backlog,
        backlog_drained_s=round(drained_s, 2),
        waiting=figures["waiting"],
        dead_letters=trigger["dead"] - before["dead"],
        wrong_users=count_differing(expected, found),
    )


async def _send(sender: Sender, events: Sequence[InteractionEvent], *, rate: float) -> None:
    """Post *events* at a constant *rate*, without waiting for earlier posts."""
    began, posts = time.monotonic(), set[asyncio.Task[None]]()
    for number, event in enumerate(events):
        await asyncio.sleep(began + number / rate - time.monotonic())
        task = asyncio.create_task(sender.send(event))
        posts.add(task)
        task.add_done_callback(posts.discard)
    await asyncio.gather(*posts)


async def _interrupt(redis: RedisServer, *, mode: str, seconds: float) -> None:
    """Kill or pause *redis*; after *seconds*, restart or continue it."""
    if mode == "kill":
        await asyncio.to_thread(redis.stop, signal.SIGKILL)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(redis.start)
    else:
        redis.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            redis.signal(signal.SIGCONT)


async def _watch_backlog(pipeline: RunningPipeline) -> tuple[int, float]:
    """Return the largest number of deliveries that wait for a retry, and the seconds until none does."""
    began, backlog = time.monotonic(), 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_TIMEOUT_S):
            while left := (await asyncio.to_thread(pipeline.events))["triggers"]["default/interactions"]["retrying"]:
                backlog = max(backlog, left)
                await asyncio.sleep(_POLL_S)
    return backlog, time.monotonic() - began


def main(arguments: Sequence[str] | None = None) -> int:
    """Run once and print the outcome as JSON; return 1 where it does not hold."""
    parser = argparse.ArgumentParser(prog="tools.chaos.outage", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--mode", choices=("stop", "kill"), default="stop")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=50.0, help="events a second")
    options = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory() as folder,
        redis_running(Path(folder)) as redis,
        pipeline_running(Path(folder), redis_url=redis.url) as pipeline,
    ):
        outcome = asyncio.run(run(pipeline, redis, **vars(options)))
    print(json.dumps({**asdict(outcome), "holds": outcome.holds}))
    return 0 if outcome.holds else 1


if __name__ == "__main__":
    sys.exit(main())
