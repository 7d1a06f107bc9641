"""The records of a feature store, and the interactions that it counts."""

import hashlib

from msgspec import Struct


class HistoryItem(Struct, frozen=True):
    """
    The connection between a user and one item.

    Attributes:
        item_id: The item.
        weight: Sum of the weights of all interactions with the item.
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
        avoided: Ids of items whose ties are not above 0, in the same order.
    """

    recent: list[str] = []
    avoided: list[str] = []


class UserRecord(Profile, frozen=True):
    """
    The whole record of a user.

    Attributes:
        history: Distinct items whose ties are above 0, newest first, ties by item id.
        avoided: The other items, in the same order. The user disliked or returned them.
    """

    history: list[HistoryItem] = []
    avoided: list[HistoryItem] = []

    def known(self, *, history: int) -> KnownUser:
        """Return the part that a request needs, with at most *history* items of each kind."""
        profile = (getattr(self, name) for name in Profile.__struct_fields__)
        lists = ([item.item_id for item in items[:history]] for items in (self.history, self.avoided))
        return KnownUser(*(*profile, *lists))


class Interaction(Struct, frozen=True):
    """
    One action of a user, taken from an event.

    Attributes:
        source: Source of the event.
        event_id: Id of the event. Source and id together identify the event.
        user_id: The user who acted.
        kind: Name of the kind, such as `view` or `session_end`.
        time_us: Time of the action, microseconds since the epoch.
        item_id: The item acted on; None for `session_end`.
        duration_ms: Length of the session that ended; 0 for other kinds.
        weight: Amount that the action adds to the tie between the user and the item; a view's by default.
        counter: The counter of `Profile` to which the action adds 1; None for no counter; a view's by default.
        exposure_id: The exposure that the event names; "" if it names none.
    """

    source: str
    event_id: str
    user_id: str
    kind: str
    time_us: int
    item_id: str | None = None
    duration_ms: int = 0
    weight: float = 1.0
    counter: str | None = "views"
    exposure_id: str = ""

    def digest(self) -> bytes:
        """Return 16 bytes that identify the event."""
        return hashlib.blake2b(f"{self.source}\n{self.event_id}".encode(), digest_size=16).digest()
