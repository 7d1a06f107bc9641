"""
The interface of feature stores.

For each user a store holds a profile, counters, and the items of the user's interactions. It never holds features:
`recsys.features` computes those from this state.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Protocol

from msgspec import Struct

from recsys.contracts.wire import Features


class StoreError(Exception):
    """Base of all store errors; `retryable` tells whether the same call may succeed later."""

    retryable = False


class StoreUnavailableError(StoreError):
    """The store did not answer or is locked; the same call may succeed later."""

    retryable = True


class StoreMissingError(StoreError):
    """The store does not exist, or holds nothing although it should."""


class StoreFormatError(StoreError):
    """The store exists and holds data that this version cannot read."""


class HistoryItem(Struct, frozen=True):
    """
    The connection between a user and one item.

    Attributes:
        item_id: The item.
        weight: Sum of the weights of all interactions with the item, above 0.
        time_us: Time of the newest interaction with the item, microseconds since the epoch.
    """

    item_id: str
    weight: float
    time_us: int


class Profile(Struct, frozen=True):
    """
    A user's age group and counters.

    Attributes:
        user_id: The user.
        age_group: One of `recsys.features.AGE_GROUPS`.
        views: All views. `clicks`, `purchases` and `sessions` count in the same way.
        session_ms: Total length of all sessions, milliseconds.
        as_of_us: Time of the newest interaction, microseconds since the epoch; None without interactions.
    """

    user_id: str
    age_group: str
    views: int = 0
    clicks: int = 0
    purchases: int = 0
    sessions: int = 0
    session_ms: int = 0
    as_of_us: int | None = None


class KnownUser(Profile, frozen=True):
    """
    The part of a record that a request needs.

    Attributes:
        recent: Ids of the newest items, newest first, ties by item id.
    """

    recent: list[str] = []


class UserRecord(Profile, frozen=True):
    """
    The whole record of a user.

    Attributes:
        history: Distinct items, newest first, ties by item id.
    """

    history: list[HistoryItem] = []

    def known(self, *, history: int) -> KnownUser:
        """Return the part that a request needs, with at most *history* items."""
        profile = (getattr(self, name) for name in Profile.__struct_fields__)
        return KnownUser(*(*profile, [item.item_id for item in self.history[:history]]))


class Interaction(Struct, frozen=True):
    """
    One action of a user, taken from an event.

    Attributes:
        source: Source of the event.
        event_id: Id of the event. Source and id together identify the event.
        user_id: The user who acted.
        kind: `view`, `click`, `purchase` or `session_end`.
        time_us: Time of the action, microseconds since the epoch.
        item_id: The item acted on; None for `session_end`.
        duration_ms: Length of the session that ended; 0 for other kinds.
    """

    source: str
    event_id: str
    user_id: str
    kind: str
    time_us: int
    item_id: str | None = None
    duration_ms: int = 0


class FeatureStore(Protocol):
    """
    A feature store. Every implementation passes tests/stores/test_conformance.py.

    A method raises `StoreUnavailableError` if the store cannot answer now or is closed, and `StoreFormatError` if it
    finds data that it cannot read.
    """

    async def read(self, user_ids: Sequence[str], *, history: int) -> list[KnownUser | None]:
        """
        Return each user in the order of *user_ids*, None for an unknown user.

        Each has at most the newest *history* items. The call takes one round trip for any number of users.
        """
        ...

    async def apply(self, interactions: Sequence[Interaction]) -> list[bool]:
        """
        Count each of *interactions* once; tell for each whether it was new.

        A user's record depends only on the set of events applied, not on their order, their grouping or repeated
        deliveries. (source, id) identifies an event. Two users must not share an event; a store may count the second
        or not. A store recognises a repeated event for its deduplication window, which starts at the first delivery.

        After the call returns, the events survive the end of this process. If the call raises, some of them may be
        counted, and the caller may safely send all of them again.
        """
        ...

    async def population(self) -> Features | None:
        """Return what to assume of a user that the store does not know; None before the first `replace`."""
        ...

    async def replace(self, records: Iterable[UserRecord], *, population: Features) -> int:
        """
        Replace the whole content by *records*, all or nothing; return their number.

        If iterating over *records* raises, the content stays as it was. The same holds for `StoreFormatError`, raised
        for a counter below 0 or above `recsys.stores.counting.MOST`. Replacements must not overlap.
        """
        ...

    def scan(self) -> AsyncIterator[UserRecord]:
        """Yield every record with its whole history, ordered by user id. Training and copying use it, serving does not."""
        ...

    async def aclose(self) -> None:
        """
        Close files and connections. A closed store stays closed, and may be closed again.

        A call in progress finishes or raises `StoreUnavailableError`.
        """
        ...
