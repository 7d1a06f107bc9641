"""
Split the training data at dates: what came before a date, and the users who act after it.

The weights of users who return (`return_weights`) and of users who arrive (`arrival_weights`) are learned on them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from offline.evaluation.holdout import SHARE
from recrank.blend import AWAY_US
from recsys.records import UserRecord

# A hold-out with fewer users judges nothing.
FEWEST_USERS = 50
_DATES = 2


@dataclass(frozen=True)
class Dated:
    """
    The training data at a date.

    Attributes:
        before: The records before the date; users without a history are absent.
        returned: For each user who was away on the date and returns after it, the ids of the later items.
        arrived: The users whose first interaction is later, up to the date after this one.
    """

    before: Sequence[UserRecord]
    returned: Mapping[str, Sequence[str]]
    arrived: Sequence[UserRecord]


def split_at_dates(records: Sequence[UserRecord]) -> list[Dated]:
    """
    Split *records*, which all have times, at two dates, newest first.

    The newest fifth of the interactions follows the first date. The second date splits what came before the first one.
    """
    found: list[Dated] = []
    for _ in range(_DATES):
        if records:
            found.append(_split(records))
            records = found[-1].before
    return found


def _split(records: Sequence[UserRecord]) -> Dated:
    times = np.sort([item.time_us for record in records for item in record.history])
    date_us = int(times[times.size - max(times.size // SHARE, 1)])
    before, returned, arrived = [], {}, []
    for record in records:
        new = sum(item.time_us >= date_us for item in record.history)
        if new == len(record.history):
            # A user without a history is known by attributes alone, and never arrives.
            arrived += [record] if new else []
            continue
        before.append(msgspec.structs.replace(record, history=record.history[new:]))
        if new and date_us - record.history[new].time_us >= AWAY_US:
            returned[record.user_id] = [item.item_id for item in record.history[:new]]
    return Dated(before, returned, arrived)
