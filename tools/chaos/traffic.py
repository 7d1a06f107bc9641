"""Interaction events at random, and what a store holds after each of them was counted once."""

import json
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from recsys.features import TIE_WEIGHTS, UNKNOWN_AGE
from recsys.stores.port import HistoryItem, UserRecord

SOURCE = "/tools/chaos"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_START = datetime(2026, 3, 1, tzinfo=UTC)
_KINDS = ("view", "click", "purchase", "session_end")
_SHARES = (6, 2, 1, 1)


@dataclass(frozen=True)
class Event:
    """An interaction event: its id, and what it tells."""

    id: str
    user_id: str
    kind: str
    time: datetime
    item_id: str | None
    duration_ms: int

    def headers(self) -> list[tuple[str, str]]:
        """Return its attributes, in binary mode."""
        attributes = {"specversion": "1.0", "type": "dev.recsys.interaction.v1", "source": SOURCE, "id": self.id}
        return [("content-type", "application/json"), *((f"ce-{name}", value) for name, value in attributes.items())]

    def body(self) -> bytes:
        """Return its data."""
        data: dict[str, object] = {"user_id": self.user_id, "kind": self.kind, "time": self.time.isoformat()}
        about = {"item_id": self.item_id} if self.item_id else {"duration_s": self.duration_ms / 1000}
        return json.dumps(data | about).encode()


def make_events(count: int, *, users: int, prefix: str, seed: int) -> list[Event]:
    """Return *count* events of so many users, in no order of time; users and ids begin with *prefix*."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        (kind,) = draw.choices(_KINDS, _SHARES)
        ended = kind == "session_end"
        made.append(
            Event(
                id=f"{prefix}-{number}",
                user_id=f"{prefix}_{draw.randrange(users)}",
                kind=kind,
                time=_START + timedelta(microseconds=draw.randrange(30 * 86_400 * 1_000_000)),
                item_id=None if ended else f"item_{draw.randrange(1000)}",
                duration_ms=draw.randrange(3_600_000) if ended else 0,
            )
        )
    return made


def repeat_some(events: Sequence[Event], *, share: float, seed: int) -> list[Event]:
    """Return *events* and a *share* of them once more, shuffled."""
    draw = random.Random(seed)
    posts = [*events, *draw.sample(events, round(share * len(events)))]
    draw.shuffle(posts)
    return posts


def expected_records(events: Iterable[Event]) -> dict[str, UserRecord]:
    """Return the record of each user, from *events* alone: counted here, not by the code that is tested."""
    of_user: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        of_user[event.user_id].append(event)
    return {user: _record(user, own) for user, own in of_user.items()}


def _record(user: str, events: Sequence[Event]) -> UserRecord:
    kinds = [event.kind for event in events]
    ties: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        if event.item_id is not None:
            ties[event.item_id].append(event)
    history = [
        HistoryItem(item, float(sum(TIE_WEIGHTS[event.kind] for event in own)), max(map(_time_us, own)))
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
        as_of_us=max(map(_time_us, events)),
        history=sorted(history, key=lambda item: (-item.time_us, item.item_id)),
    )


def _time_us(event: Event) -> int:
    return (event.time - _EPOCH) // timedelta(microseconds=1)
