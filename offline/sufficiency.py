"""Tell whether data is enough to learn from."""

from collections import Counter
from collections.abc import Iterable

from recsys.records import UserRecord

# Below these numbers, a hold-out has so few items that the choice of sources and weights is mostly chance.
ENOUGH_USERS = 100
ENOUGH_ITEMS = 20


def find_shortages(records: Iterable[UserRecord]) -> list[str]:
    """
    Return a sentence for each thing that is too rare in *records*.

    A model learns from users with two items or more, and from items that two users or more have.
    """
    histories = [record.history for record in records if len(record.history) > 1]
    owners = Counter(item.item_id for history in histories for item in history)
    shared = sum(count > 1 for count in owners.values())
    found = []
    if len(histories) < ENOUGH_USERS:
        found.append(f"users with two items or more: {len(histories)}; a model needs about {ENOUGH_USERS}")
    if shared < ENOUGH_ITEMS:
        found.append(f"items of two such users or more: {shared}; a model needs about {ENOUGH_ITEMS}")
    return found
