"""
Kill processes while answers and interactions are delivered, and check that each pair is joined exactly once.

Senders post events about answers and interactions in random order, some of them twice. Half of the answers are reported
alone and half in groups, and half of the interactions name their exposure. At the same time, the broker, Envoy and
instances of all functions are killed with SIGKILL. At the end, the exposure log must hold exactly the join of the
distinct events.

    python -m tools.chaos.shown [--store sqlite|redis] [--answers 5000] [--senders 16]
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from recstore.exposures.join import DAY_S, join
from recstore.exposures.records import Action, Exposure, ExposureOutcome, ShownItem, action_of
from recstore.exposures.urls import open_exposures
from recsys.contracts import events
from recsys.records import Interaction
from tools.chaos.kills import chaos_pipeline, killing
from tools.chaos.sender import PostableEvent, Sender
from tools.chaos.traffic import SOURCE, InteractionEvent, count_differing, time_us
from tools.running import RunningPipeline

_REPEATED = 0.2
_USERS, _ITEMS, _LENGTH = 100, 200, 5
# Five parts, and two rows of the log in SQLite.
_GROUPED, _PART = 150, 32
_DRAIN_TIMEOUT_S = 120.0
_ACTED_WITHIN = timedelta(hours=1)


@dataclass(frozen=True)
class ServedEvent:
    """An event about one answer."""

    id: str
    user_id: str
    time: datetime
    item_ids: tuple[str, ...]

    def headers(self) -> list[tuple[str, str]]:
        """Return the event's attributes as headers of a CloudEvent in binary mode."""
        return _headers(events.SERVED, self.id)

    def body(self) -> bytes:
        """Return the event's data as JSON."""
        items = [{"item_id": item, "position": place} for place, item in enumerate(self.item_ids, 1)]
        moment = self.time.isoformat()
        answer = {"exposure_id": self.id, "user_id": self.user_id, "time": moment, "items": items, "took_us": 0}
        return json.dumps(answer).encode()

    def exposure(self) -> Exposure:
        """Return the exposure that the event reports."""
        items = tuple(ShownItem(item, place) for place, item in enumerate(self.item_ids, 1))
        return Exposure(self.id, self.user_id, time_us(self.time), items, took_us=0)


@dataclass(frozen=True)
class GroupEvent:
    """An event about several answers."""

    answers: tuple[ServedEvent, ...]

    def headers(self) -> list[tuple[str, str]]:
        """Return the event's attributes as headers of a CloudEvent in binary mode."""
        return _headers(events.SERVED_GROUP, f"group-{self.answers[0].id}")

    def body(self) -> bytes:
        """Return the event's data as JSON."""
        starts = range(0, len(self.answers), _PART)
        parts = [_part(self.answers[start : start + _PART]) for start in starts]
        return msgspec.json.encode(events.ServedGroupData(parts))


def _part(answers: Sequence[ServedEvent]) -> events.ServedPart:
    return events.ServedPart(
        [each.id for each in answers],
        [each.user_id for each in answers],
        [list(each.item_ids) for each in answers],
        [time_us(each.time) for each in answers],
        [0] * len(answers),
        [events.Origin()],
        [0] * len(answers),
    )


def _headers(type_: str, event_id: str) -> list[tuple[str, str]]:
    attributes = {"specversion": "1.0", "type": type_, "source": SOURCE, "id": event_id}
    return [("content-type", "application/json"), *((f"ce-{name}", value) for name, value in attributes.items())]


@dataclass(frozen=True)
class ShownOutcome:
    """
    The result of a run.

    Attributes:
        store: `sqlite` or `redis`.
        answers: Number of distinct answers.
        pairs: Pairs of an answer and an interaction that must be joined.
        posts: Posts that the broker accepted, including repeated events.
        kills: Number of kills by victim.
        waiting: Deliveries still pending at the end.
        dead_letters: Deliveries that the broker gave up.
        wrong_answers: Answers whose outcomes differ from the events.
    """

    store: str
    answers: int
    pairs: int
    posts: int
    kills: dict[str, int]
    waiting: int
    dead_letters: int
    wrong_answers: int

    @property
    def holds(self) -> bool:
        """Whether processes were killed, and each pair was joined once."""
        return bool(self.kills and self.pairs) and not (self.waiting or self.dead_letters or self.wrong_answers)


async def run(pipeline: RunningPipeline, *, store: str, answers: int, senders: int, seed: int) -> ShownOutcome:
    """Send events while killing processes, wait for the deliveries, and compare the log with the events."""
    prefix = f"shown{seed}"
    served = make_answers(answers, prefix=prefix, seed=seed)
    acted = make_interactions(served, prefix=prefix, seed=seed)
    draw = random.Random(seed)
    alone, together = served[: answers // 2], served[answers // 2 :]
    groups = [together[start : start + _GROUPED] for start in range(0, len(together), _GROUPED)]
    shown: list[PostableEvent] = [*alone, *(GroupEvent(tuple(each)) for each in groups)]
    posts: list[PostableEvent] = [
        *shown,
        *acted,
        *draw.sample(shown, round(_REPEATED * len(shown))),
        *draw.sample(acted, answers // 2),
    ]
    draw.shuffle(posts)
    sender, kills = Sender(pipeline.broker_url), Counter[str]()
    async with killing(pipeline, kills, draw):
        await sender.send_all(posts, senders=senders)
    figures = await pipeline.until_delivered(within_s=_DRAIN_TIMEOUT_S)
    await sender.aclose()
    expected = expected_outcomes(served, acted)
    async with aclosing(open_exposures(pipeline.store_url)) as log:
        found = {each.exposure_id: each async for each in log.scan() if each.exposure_id.startswith(prefix)}
    return ShownOutcome(
        store=store,
        answers=answers,
        pairs=sum(len(item.outcomes) for each in expected.values() for item in each.items),
        posts=sender.accepted,
        kills=dict(kills),
        waiting=figures["waiting"],
        dead_letters=sum(each["dead"] for each in figures["triggers"].values()),
        wrong_answers=count_differing(expected, found),
    )


def make_answers(count: int, *, prefix: str, seed: int) -> list[ServedEvent]:
    """Return *count* events about answers of a day that ended _ACTED_WITHIN ago, so that no action is in the future."""
    # A time in the future counts as that of the arrival, so the join would depend on the order of the deliveries.
    draw, end = random.Random(seed), datetime.now(UTC) - _ACTED_WITHIN
    return [
        ServedEvent(
            f"{prefix}-{number}",
            f"{prefix}_{draw.randrange(_USERS)}",
            end - timedelta(microseconds=draw.randrange(round(DAY_S * 1e6))),
            tuple(f"item_{item}" for item in draw.sample(range(_ITEMS), _LENGTH)),
        )
        for number in range(count)
    ]


def make_interactions(served: Sequence[ServedEvent], *, prefix: str, seed: int) -> list[InteractionEvent]:
    """Return an interaction with an item of each answer; half of them name their exposure."""
    draw = random.Random(seed)
    return [
        InteractionEvent(
            id=f"{prefix}-act-{number}",
            user_id=each.user_id,
            kind=draw.choice(["view", "click", "purchase"]),
            time=each.time + draw.random() * _ACTED_WITHIN,
            item_id=draw.choice(each.item_ids),
            duration_ms=0,
            exposure_id=each.id if number % 2 else None,
        )
        for number, each in enumerate(served)
    ]


def expected_outcomes(served: Sequence[ServedEvent], acted: Sequence[InteractionEvent]) -> dict[str, ExposureOutcome]:
    """Return the join of the distinct events, by exposure."""
    found: dict[str, ExposureOutcome] = {}
    for user in {each.user_id for each in served}:
        exposures = [each.exposure() for each in served if each.user_id == user]
        actions = [_action(each) for each in acted if each.user_id == user]
        found |= {each.exposure_id: each for each in join(exposures, actions, window_us=round(DAY_S * 1e6))}
    return found


def _action(event: InteractionEvent) -> Action:
    interaction = Interaction(
        SOURCE,
        event.id,
        event.user_id,
        event.kind,
        time_us(event.time),
        event.item_id,
        exposure_id=event.exposure_id or "",
    )
    action = action_of(interaction)
    if action is None:
        raise ValueError(f"{event.id}: this interaction has no item")
    return action


def main(arguments: Sequence[str] | None = None) -> int:
    """Run once and print the outcome as JSON; return 1 if a pair was lost or joined twice."""
    parser = argparse.ArgumentParser(prog="tools.chaos.shown", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--store", choices=("sqlite", "redis"), default="sqlite")
    parser.add_argument("--answers", type=int, default=5000)
    parser.add_argument("--senders", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory() as folder,
        chaos_pipeline(Path(folder), options.store, exposures=True) as pipeline,
    ):
        outcome = asyncio.run(run(pipeline, **vars(options)))
    print(json.dumps({**asdict(outcome), "holds": outcome.holds}))
    return 0 if outcome.holds else 1


if __name__ == "__main__":
    sys.exit(main())
