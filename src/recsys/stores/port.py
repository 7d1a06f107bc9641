"""
The feature store as its users see it.

A store holds, per user, a profile, counters and the items they interacted with. It holds what features are computed
from, never features: those are a function of this state (`recsys.features`).
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Protocol

from msgspec import Struct

from recsys.contracts.wire import Features


class StoreError(Exception):
    """Root of what a store can fail with; `retryable` tells whether the same call may succeed later."""

    retryable = False


class StoreUnavailableError(StoreError):
    """The store did not answer or is locked; the same call may succeed later."""

    retryable = True


class StoreMissingError(StoreError):
    """There is no store at this place."""


class StoreFormatError(StoreError):
    """The store is there and holds something this version does not read."""


class HistoryItem(Struct, frozen=True):
    """
    A user's tie to one item.

    Attributes:
        item_id: The item.
        weight: How strong the tie is: the sum of the weights of all interactions with it, above 0.
        time_us: Newest interaction with it, microseconds since the epoch.
    """

    item_id: str
    weight: float
    time_us: int


class Profile(Struct, frozen=True):
    """
    Who a user is and how much they did.

    Attributes:
        user_id: The user.
        age_group: One of `recsys.features.AGE_GROUPS`.
        views: Views ever; likewise clicks, purchases, sessions.
        session_ms: Milliseconds in all sessions together.
        as_of_us: Newest interaction, microseconds since the epoch; None without any.
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
    What a request wants to know of a user.

    Attributes:
        recent: Ids of the newest items, newest first, ties by item id.
    """

    recent: list[str] = []


class UserRecord(Profile, frozen=True):
    """
    All a store knows of a user.

    Attributes:
        history: Distinct items, newest first, ties by item id.
    """

    history: list[HistoryItem] = []

    def known(self, *, history: int) -> KnownUser:
        """Return what of this a request wants to know, with at most *history* items."""
        profile = (getattr(self, name) for name in Profile.__struct_fields__)
        return KnownUser(*(*profile, [item.item_id for item in self.history[:history]]))


class Interaction(Struct, frozen=True):
    """
    Something a user did, as an event told it.

    Attributes:
        source: Of the event.
        event_id: Of the event; with the source it tells deliveries of one event apart from another event.
        user_id: Who.
        kind: `view`, `click`, `purchase` or `session_end`.
        time_us: When, microseconds since the epoch.
        item_id: To what; None at the end of a session.
        duration_ms: Length of the session that ended.
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
    The port. Every implementation passes the suite in tests/stores/conformance.

    Methods raise `StoreUnavailableError` when the store cannot answer now, or has been closed.
    """

    async def read(self, user_ids: Sequence[str], *, history: int) -> list[KnownUser | None]:
        """
        Return each user in the order asked, None for one the store does not know.

        At most the newest *history* items come with each. One round trip, however many users.
        """
        ...

    async def apply(self, interactions: Sequence[Interaction]) -> list[bool]:
        """
        Count *interactions*, each at once and only once; tell for each whether it was new.

        A user's record after any number of calls is a function of the set of events applied: their order, their
        distribution over calls, and repeated deliveries make no difference. (source, id) tells events apart, so two users
        have none in common; whether the second one's would count is up to the store. An event is known as repeated for the
        store's deduplication window, counted from its first delivery. When the call returns the events outlive this
        process; when it raises, any of them may have been applied, and applying them again is safe.
        """
        ...

    async def population(self) -> Features | None:
        """Return what to assume of a user that the store does not know; None before the first `replace`."""
        ...

    async def replace(self, records: Iterable[UserRecord], *, population: Features) -> int:
        """
        Make *records* the whole content, all or nothing; return how many there are. One replacement at a time.

        Whatever *records* raises leaves the content as it was; so does `StoreFormatError`, which is raised for a counter
        below 0 or above `recsys.stores.counting.MOST`.
        """
        ...

    def scan(self) -> AsyncIterator[UserRecord]:
        """Yield every record with its whole history, ordered by user id. For training and copying, not serving."""
        ...

    async def aclose(self) -> None:
        """
        Let go of files and connections, for good. Closing twice is allowed.

        A call that is under way comes to its end or raises `StoreUnavailableError`.
        """
        ...
