"""The times that events report."""

import time
from datetime import UTC, datetime

from chassis.wire.cloudevents import CloudEvent
from chassis.wire.event_rules import NOT_A_TIME, parse_time
from chassis.wire.problems import Fault

_LATEST_S = 4_102_444_800


def event_time_us(event: CloudEvent) -> int:
    """Return the time of *event* in microseconds since the epoch, or now if it has none or one in the future."""
    now_s = time.time()
    # A time in the future would stop later changes.
    return round(max(0.0, min(_seconds(event.time) if event.time else now_s, now_s)) * 1_000_000)


def read_time_us(text: str | None, event: CloudEvent, *, path: str, faults: list[Fault]) -> int:
    """
    Return the time *text* of the data in microseconds since the epoch.

    Without *text*, the time of *event* counts, and without that the present. A time in the future, as of a device whose
    clock is ahead, counts as the present: the newest time of all users tells a training who was away, and which items
    are popular now. A fault of the time at *path* of the data is added to *faults*.
    """
    moment = event.time
    if text is not None:
        try:
            moment = parse_time(text)
        except ValueError:
            faults.append(Fault(path, NOT_A_TIME))
    now_s = time.time()
    seconds = _seconds(moment) if moment else now_s
    if not 0 <= seconds < _LATEST_S:
        faults.append(Fault(path, "must be between 1970 and 2100"))
    return round(min(seconds, now_s) * 1_000_000)


def _seconds(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
