"""What an interaction does to a record. Stores that count on the server's side do the same in their own language."""

import msgspec

from recsys.features import TIE_WEIGHTS, UNKNOWN_AGE
from recsys.stores.port import HistoryItem, Interaction, UserRecord

DEDUPLICATION_WINDOW_S = 7 * 86_400.0

_COUNTERS = {"view": "views", "click": "clicks", "purchase": "purchases", "session_end": "sessions"}


def new_record(user_id: str) -> UserRecord:
    """Return the record of a user whose first event has just come."""
    return UserRecord(user_id, UNKNOWN_AGE)


def count_interaction(record: UserRecord, interaction: Interaction) -> UserRecord:
    """Return *record* with *interaction* counted: sums and maxima, so the order of interactions is no matter."""
    counter = _COUNTERS[interaction.kind]
    return msgspec.structs.replace(
        record,
        **{counter: getattr(record, counter) + 1},
        session_ms=record.session_ms + interaction.duration_ms,
        as_of_us=max(record.as_of_us or 0, interaction.time_us),
        history=_tie(record.history, interaction),
    )


def _tie(history: list[HistoryItem], interaction: Interaction) -> list[HistoryItem]:
    if interaction.item_id is None:
        return history
    ties = {item.item_id: item for item in history}
    before = ties.get(interaction.item_id, HistoryItem(interaction.item_id, 0.0, 0))
    ties[interaction.item_id] = HistoryItem(
        interaction.item_id,
        before.weight + TIE_WEIGHTS[interaction.kind],
        max(before.time_us, interaction.time_us),
    )
    return sort_history(list(ties.values()))


def sort_history(history: list[HistoryItem]) -> list[HistoryItem]:
    """Return *history* newest first, ties by item id."""
    return sorted(history, key=lambda item: (-item.time_us, item.item_id))
