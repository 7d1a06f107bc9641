"""
Kill processes while events are delivered, and check that no event is lost or counted twice.

Senders post interaction events in random order, some of them twice. At the same time, the broker, Envoy and instances of
all functions are killed with SIGKILL, one after the other. At the end, the store must match the events exactly.

    python -m tools.chaos.kills [--store sqlite|redis] [--events 20000] [--users 500] [--senders 16]
"""

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from tools.bench.redis_server import redis_running
from tools.chaos.sender import Sender
from tools.chaos.traffic import count_differing, expected_records, make_events, repeat_some
from tools.running import RunningPipeline, pipeline_running

_REPEATED = 0.2
_KILL_AFTER_S = (0.3, 1.5)
_DRAIN_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class KillsOutcome:
    """
    The result of a run.

    Attributes:
        store: `sqlite` or `redis`.
        events: Number of distinct events.
        posts: Posts that the broker accepted, including repeated events.
        sent_again: Posts that the broker did not accept; the sender retried them.
        kills: Number of kills by victim.
        sending_s: Time from the first post to the last acceptance.
        draining_s: Time from then until no delivery was pending.
        failed_attempts: Deliveries that the broker retried.
        waiting: Deliveries still pending at the end.
        dead_letters: Deliveries that the broker gave up.
        wrong_users: Users whose record differs from the events.
    """

    store: str
    events: int
    posts: int
    sent_again: int
    kills: dict[str, int]
    sending_s: float
    draining_s: float
    failed_attempts: int
    waiting: int
    dead_letters: int
    wrong_users: int

    @property
    def holds(self) -> bool:
        """Whether processes were killed and no event was lost or counted twice."""
        return bool(self.kills) and not (self.waiting or self.dead_letters or self.wrong_users)


async def run(
    pipeline: RunningPipeline, *, store: str, events: int, users: int, senders: int, seed: int
) -> KillsOutcome:
    """Send events while killing processes, wait for the deliveries, and compare the store with the events."""
    made = make_events(events, users=users, prefix=f"chaos{seed}", seed=seed)
    sender, kills = Sender(pipeline.broker_url), Counter[str]()
    began = time.monotonic()
    async with killing(pipeline, kills, random.Random(seed)):
        await sender.send_all(repeat_some(made, share=_REPEATED, seed=seed), senders=senders)
        sent = time.monotonic()
    figures = await pipeline.until_delivered(within_s=_DRAIN_TIMEOUT_S)
    drained = time.monotonic()
    await sender.aclose()
    expected, found = expected_records(made), await pipeline.records(f"chaos{seed}_")
    trigger = figures["triggers"]["default/interactions"]
    return KillsOutcome(
        store=store,
        events=events,
        posts=sender.accepted,
        sent_again=sender.refused,
        kills=dict(kills),
        sending_s=round(sent - began, 1),
        draining_s=round(drained - sent, 1),
        failed_attempts=trigger["failed"],
        waiting=figures["waiting"],
        dead_letters=trigger["dead"],
        wrong_users=count_differing(expected, found),
    )


@asynccontextmanager
async def killing(pipeline: RunningPipeline, kills: Counter[str], draw: random.Random) -> AsyncIterator[None]:
    """Kill a random process every few hundred milliseconds until the block ends, and count the kills in *kills*."""
    task = asyncio.create_task(_kill_processes(pipeline, kills, draw))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _kill_processes(pipeline: RunningPipeline, kills: Counter[str], draw: random.Random) -> None:
    wait_s = _KILL_AFTER_S[0]
    while True:
        await asyncio.sleep(wait_s)
        wait_s = draw.uniform(*_KILL_AFTER_S)
        victims = await asyncio.to_thread(_find_victims, pipeline)
        name = draw.choice(sorted(victims))
        if pids := victims[name]:
            with suppress(ProcessLookupError):  # the process has ended
                os.kill(draw.choice(pids), signal.SIGKILL)
                kills[name] += 1


def _find_victims(pipeline: RunningPipeline) -> dict[str, list[int]]:
    """Return the ids of the ready instances of each Service, and of Envoy."""
    status = pipeline.status()
    instances = {
        name: [
            instance["pid"]
            for revision in service["revisions"]
            for instance in revision["instances"]
            if instance["state"] == "ready"
        ]
        for name, service in (status["services"] | status["built_in"]).items()
    }
    return instances | {"envoy": [each.pid for name, each in pipeline.processes().items() if name == "envoy"]}


@contextmanager
def chaos_pipeline(folder: Path, store: str, *, exposures: bool = False) -> Iterator[RunningPipeline]:
    """Run a pipeline on a *store* of `sqlite` or `redis`, with at least two instances of extract_features."""
    if store == "sqlite":
        with pipeline_running(folder, min_scale=2, exposures=exposures) as pipeline:
            yield pipeline
    else:
        with (
            redis_running(folder) as server,
            pipeline_running(folder, redis_url=server.url, min_scale=2, exposures=exposures) as pipeline,
        ):
            yield pipeline


def main(arguments: Sequence[str] | None = None) -> int:
    """Run once and print the outcome as JSON; return 1 where something was lost or counted twice."""
    parser = argparse.ArgumentParser(prog="tools.chaos.kills", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--store", choices=("sqlite", "redis"), default="sqlite")
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--senders", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, chaos_pipeline(Path(folder), options.store) as pipeline:
        outcome = asyncio.run(run(pipeline, **vars(options)))
    print(json.dumps({**asdict(outcome), "holds": outcome.holds}))
    return 0 if outcome.holds else 1


if __name__ == "__main__":
    sys.exit(main())
