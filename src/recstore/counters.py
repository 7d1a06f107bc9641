"""Count interactions and take updates over into a record. SQLite and Redis implement the same rules in SQL and Lua."""

from collections.abc import Iterable, Iterator

import msgspec

from recstore.port import StoreFormatError
from recsys.features import UNKNOWN_AGE
from recsys.records import AGE_GROUP, HistoryItem, Interaction, UserRecord, UserUpdate

DEDUPLICATION_WINDOW_S = 7 * 86_400.0
# The largest counter that `replace` accepts. Stores count in signed 64 bits, so that further events cannot overflow it.
MOST = 2**53

COUNTERS = ("views", "clicks", "purchases", "sessions", "session_ms")


def new_record(user_id: str) -> UserRecord:
    """Return the record of a user before their first event."""
    return UserRecord(user_id, UNKNOWN_AGE)


def countable(records: Iterable[UserRecord]) -> Iterator[UserRecord]:
    """
    Yield *records* after checking that stores can add to their counters.

    Raises:
        StoreFormatError: a counter is below 0 or above `MOST`. An event for this user would fail its whole transaction.
    """
    for record in records:
        for name in COUNTERS:
            if not 0 <= getattr(record, name) <= MOST:
                raise StoreFormatError(
                    f"a user's {name} is {getattr(record, name)}, not within 0 and {MOST}; correct the source"
                )
        yield record


def count_interaction(record: UserRecord, interaction: Interaction) -> UserRecord:
    """Return *record* with *interaction* counted. Sums and maxima make the order of interactions irrelevant."""
    counter = interaction.counter
    history, avoided = split_ties(_tie([*record.history, *record.avoided], interaction))
    return msgspec.structs.replace(
        record,
        **({counter: getattr(record, counter) + 1} if counter else {}),
        session_ms=record.session_ms + interaction.duration_ms,
        as_of_us=max(record.as_of_us or 0, interaction.time_us),
        history=history,
        avoided=avoided,
    )


def update_record(record: UserRecord, update: UserUpdate) -> UserRecord:
    """Return *record* with those values of *update* that are newer. The order of updates is irrelevant."""
    named = {each.name: each for each in record.attributes}
    for each in update.attributes():
        if each.name not in named or each.replaces(named[each.name]):
            named[each.name] = each
    age = named.get(AGE_GROUP)
    return msgspec.structs.replace(
        record,
        age_group=next(iter(age.values), UNKNOWN_AGE) if age else record.age_group,
        attributes=tuple(named[name] for name in sorted(named)),
    )


def _tie(items: list[HistoryItem], interaction: Interaction) -> list[HistoryItem]:
    if interaction.item_id is None:
        return items
    ties = {item.item_id: item for item in items}
    before = ties.get(interaction.item_id, HistoryItem(interaction.item_id, 0.0, 0))
    ties[interaction.item_id] = HistoryItem(
        interaction.item_id, before.weight + interaction.weight, max(before.time_us, interaction.time_us)
    )
    return sort_history(list(ties.values()))


def split_ties(items: Iterable[HistoryItem]) -> tuple[list[HistoryItem], list[HistoryItem]]:
    """Return the *items* whose ties are above 0, and the others, each in the order of *items*."""
    split: tuple[list[HistoryItem], list[HistoryItem]] = [], []
    for item in items:
        split[item.weight <= 0].append(item)
    return split


def sort_history(history: list[HistoryItem]) -> list[HistoryItem]:
    """Return *history* newest first, ties by item id."""
    return sorted(history, key=lambda item: (-item.time_us, item.item_id))
