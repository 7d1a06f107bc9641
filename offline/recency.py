"""
Count recent popularity: an interaction counts less, the more interactions of all users followed it.

    popularity[i] = sum over interactions with i of  2**(-number of later interactions / (half_life * all interactions))

Only the order of the interactions counts, so one half-life suits data of hours and of years.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offline.matrix import Ratings
from recsys.records import UserRecord
from topk.item_table import F32


@dataclass(frozen=True)
class Timeline:
    """
    The interactions of all users in the order of time.

    Attributes:
        items: (N,) int32, the item of each interaction, oldest first; empty if an interaction has no time.
        newest_us: Time of the newest one, microseconds since the epoch; 0 if an interaction has no time.
        size: Number of items.
    """

    items: NDArray[np.int32]
    newest_us: int
    size: int

    @classmethod
    def of(cls, records: Sequence[UserRecord], ratings: Ratings) -> "Timeline":
        """Return the timeline of *records*; equal times stay in the order of the records."""
        size = sum(len(record.history) for record in records)
        times = np.fromiter((item.time_us for record in records for item in record.history), np.int64, size)
        if not times.size or times.min() <= 0:
            return cls(np.empty(0, np.int32), 0, len(ratings.item_ids))
        columns = {item_id: column for column, item_id in enumerate(ratings.item_ids)}
        items = np.fromiter((columns[item.item_id] for record in records for item in record.history), np.int32, size)
        return cls(items[np.argsort(times, kind="stable")], int(times.max()), len(ratings.item_ids))

    def popularity(self, half_life: float) -> F32:
        """Return the recent popularity of each item as a share of the highest, (size,); zeros without times."""
        later = np.arange(self.items.size)[::-1]
        counted = np.bincount(self.items, np.exp2(later / -(half_life * max(self.items.size, 1))), self.size)
        return (counted / max(float(counted.max(initial=0.0)), 1e-9)).astype(np.float32)
