"""The records of a feature store, and the interactions that it counts."""

import hashlib
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

AGE_GROUP = "age_group"
_IMPORTED_US = 0


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


class UserAttribute(Struct, frozen=True, array_like=True):
    """
    The values of one attribute of a user.

    Attributes:
        name: The attribute.
        at_us: Time of the event that reported the values, microseconds since the epoch. Imported values have the time
            0, so every event is newer.
        values: The values. Without a value, the attribute is removed, and the store keeps the time of the removal.
    """

    name: str
    at_us: int
    values: tuple[str, ...]

    @property
    def encoded(self) -> str:
        """The values as JSON."""
        return msgspec.json.encode(self.values).decode()

    def replaces(self, other: "UserAttribute") -> bool:
        """Tell whether these values are newer than those of *other*; of the same time, the larger text counts."""
        return (self.at_us, self.encoded) > (other.at_us, other.encoded)


def imported(values: Mapping[str, Sequence[str]]) -> tuple[UserAttribute, ...]:
    """Return the *values* of an import, by attribute name, as attributes."""
    return tuple(UserAttribute(name, _IMPORTED_US, tuple(values[name])) for name in sorted(values))


class Profile(Struct, frozen=True):
    """
    A user's age group, counters and attributes.

    Attributes:
        user_id: The user.
        age_group: One of `recsys.features.AGE_GROUPS`.
        views: All views. `clicks`, `purchases` and `sessions` count in the same way.
        session_ms: Total length of all sessions, milliseconds.
        as_of_us: Time of the newest interaction, microseconds since the epoch; None without interactions.
        attributes: The attributes by name. An event about the age group is among them, and sets `age_group`.
    """

    user_id: str
    age_group: str
    views: int = 0
    clicks: int = 0
    purchases: int = 0
    sessions: int = 0
    session_ms: int = 0
    as_of_us: int | None = None
    attributes: tuple[UserAttribute, ...] = ()

    @property
    def user_attributes(self) -> dict[str, list[str]]:
        """The values of each attribute that has some, by name. The age group is a feature and not among them."""
        if not self.attributes:
            return {}
        return {each.name: list(each.values) for each in self.attributes if each.values and each.name != AGE_GROUP}


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


def digest_event(source: str, event_id: str) -> bytes:
    """Return 16 bytes that identify the event with *event_id* among those of *source* and among all others."""
    return hashlib.blake2b(f"{source}\n{event_id}".encode(), digest_size=16).digest()


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
        return digest_event(self.source, self.event_id)


class UserUpdate(Struct, frozen=True):
    """
    New values of some attributes of a user, taken from an event.

    Attributes:
        user_id: The user.
        at_us: Time of the event, microseconds since the epoch.
        values: The values of each attribute, by name; none removes the attribute.
    """

    user_id: str
    at_us: int
    values: dict[str, tuple[str, ...]]

    def attributes(self) -> list[UserAttribute]:
        """Return the values with the time of the event."""
        return [UserAttribute(name, self.at_us, values) for name, values in self.values.items()]
