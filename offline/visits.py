"""Split what a user did into visits: items whose times differ by at most the longest pause of a session."""

from collections.abc import Iterator, Sequence

from offline.collection import SESSION_GAP_US
from recsys.records import HistoryItem


def split_visits(items: Sequence[HistoryItem]) -> Iterator[Sequence[HistoryItem]]:
    """Yield the items of each visit, the oldest visit first. All items are newest first, and have times."""
    end = len(items)
    for place in range(len(items) - 1, -1, -1):
        if place == 0 or items[place - 1].time_us - items[place].time_us > SESSION_GAP_US:
            yield items[place:end]
            end = place
