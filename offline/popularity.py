"""The popularity of items in the newest days of the training data, for the declared features of this kind."""

from collections.abc import Sequence

import numpy as np

from offline.descriptions import Arrays
from recrank.features import popularity_array
from recsys.declaration.types import Declaration
from recsys.records import UserRecord
from topk.item_table import F32

_DAY_US = 86_400_000_000


def measure_popularity(
    records: Sequence[UserRecord], item_ids: Sequence[str], declaration: Declaration | None
) -> Arrays:
    """Return an array for each declared feature of the kind `popularity`: users per item, as a share of the most."""
    features = (declaration.features or {}) if declaration else {}
    windows = {name: each.days for name, each in features.items() if each.kind == "popularity" and each.days}
    if not windows:
        return {}
    rows = {item_id: row for row, item_id in enumerate(item_ids)}
    ties = [item for record in records for item in record.history]
    items = np.array([rows[item.item_id] for item in ties], np.int64)
    times = np.array([item.time_us for item in ties], np.int64)
    newest = int(times.max(initial=0))

    def share(days: float) -> F32:
        counts = np.bincount(items[times > newest - days * _DAY_US], minlength=len(item_ids))
        return (counts / max(int(counts.max(initial=0)), 1)).astype(np.float32)

    return {popularity_array(name): share(days) for name, days in windows.items()}
