"""Random interaction events, and the records that a store must hold after counting each of them once."""

import json
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from recsys.declaration.reader import default_declaration
from recsys.features import UNKNOWN_AGE
from recsys.records import HistoryItem, UserRecord

SOURCE = "/tools/chaos"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_START = datetime(2026, 3, 1, tzinfo=UTC)
_KINDS = ("view", "click", "purchase", "session_end")
_SHARES = (6, 2, 1, 1)


@dataclass(frozen=True)
class InteractionEvent:
    """
    An interaction event.

    Events of the kind `session_end` have a duration, all others have an item, and may name an exposure.
    """

    id: str
    user_id: str
    kind: str
    time: datetime
    item_id: str | None
    duration_ms: int
    exposure_id: str | None = None

    def headers(self) -> list[tuple[str, str]]:
        """Return the event's attributes as headers of a CloudEvent in binary mode."""
        attributes = {"specversion": "1.0", "type": "dev.recsys.interaction.v1", "source": SOURCE, "id": self.id}
        return [("content-type", "application/json"), *((f"ce-{name}", value) for name, value in attributes.items())]

    def body(self) -> bytes:
        """Return the event's data as JSON."""
        data: dict[str, object] = {"user_id": self.user_id, "kind": self.kind, "time": self.time.isoformat()}
        about = {"item_id": self.item_id} if self.item_id else {"duration_s": self.duration_ms / 1000}
        named = {"exposure_id": self.exposure_id} if self.exposure_id else {}
        return json.dumps(data | about | named).encode()


def make_events(count: int, *, users: int, prefix: str, seed: int) -> list[InteractionEvent]:
    """Return *count* events of *users* users with random times. User ids and event ids begin with *prefix*."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        (kind,) = draw.choices(_KINDS, _SHARES)
        ended = kind == "session_end"
        made.append(
            InteractionEvent(
                id=f"{prefix}-{number}",
                user_id=f"{prefix}_{draw.randrange(users)}",
                kind=kind,
                time=_START + timedelta(microseconds=draw.randrange(30 * 86_400 * 1_000_000)),
                item_id=None if ended else f"item_{draw.randrange(1000)}",
                duration_ms=draw.randrange(3_600_000) if ended else 0,
            )
        )
    return made


def repeat_some(events: Sequence[InteractionEvent], *, share: float, seed: int) -> list[InteractionEvent]:
    """Return *events* and a second copy of a *share* of them, shuffled."""
    draw = random.Random(seed)
    posts = [*events, *draw.sample(events, round(share * len(events)))]
    draw.shuffle(posts)
    return posts


def expected_records(events: Iterable[InteractionEvent]) -> dict[str, UserRecord]:
    """Return the record of each user after *events*. The count does not use the code under test."""
    of_user: dict[str, list[InteractionEvent]] = defaultdict(list)
    for event in events:
        of_user[event.user_id].append(event)
    return {user: _record(user, own) for user, own in of_user.items()}


def count_differing(expected: Mapping[str, object], found: Mapping[str, object]) -> int:
    """Return the number of keys whose values differ, or that one side lacks."""
    return sum(expected.get(key) != found.get(key) for key in expected.keys() | found.keys())


def _record(user: str, events: Sequence[InteractionEvent]) -> UserRecord:
    kinds = [event.kind for event in events]
    kinds_declared = default_declaration().events
    ties: dict[str, list[InteractionEvent]] = defaultdict(list)
    for event in events:
        if event.item_id is not None:
            ties[event.item_id].append(event)
    history = [
        HistoryItem(
            item, sum(kinds_declared[event.kind].weight for event in own), max(time_us(event.time) for event in own)
        )
        for item, own in ties.items()
    ]
    return UserRecord(
        user,
        UNKNOWN_AGE,
        views=kinds.count("view"),
        clicks=kinds.count("click"),
        purchases=kinds.count("purchase"),
        sessions=kinds.count("session_end"),
        session_ms=sum(event.duration_ms for event in events),
        as_of_us=max(time_us(event.time) for event in events),
        history=sorted(history, key=lambda item: (-item.time_us, item.item_id)),
    )


def time_us(moment: datetime) -> int:
    """Return *moment* in microseconds since the epoch."""
    return (moment - _EPOCH) // timedelta(microseconds=1)
