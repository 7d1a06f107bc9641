"""
The entries of the catalogue: how items have changed since the model was trained.

An entry has two parts, the description and the availability, each with the time of its change. The newer change of a
part counts, and of two changes with the same time the larger text. The result therefore does not depend on the order
in which changes arrive or are repeated.
"""

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec
from msgspec import Struct

from recsys.items import Item

REMOVED: Final = "removed"
_NEVER_US: Final = -1


class Entry(Struct, frozen=True):
    """
    The changes of one item.

    Attributes:
        item_id: The item.
        description: Title and attributes as JSON; `REMOVED` for a removed item, "" if they have not changed.
        described_us: Time of the description, microseconds since the epoch; -1 without one.
        available: Whether users may get the item.
        available_us: Time of the availability; -1 if it has not changed.
    """

    item_id: str
    description: str = ""
    described_us: int = _NEVER_US
    available: bool = True
    available_us: int = _NEVER_US

    def merge(self, other: "Entry") -> "Entry":
        """Return the newer parts of both."""
        description, described_us = self.description, self.described_us
        if (other.described_us, other.description) > (described_us, description):
            description, described_us = other.description, other.described_us
        available, available_us = self.available, self.available_us
        if (other.available_us, other.available) > (available_us, available):
            available, available_us = other.available, other.available_us
        return Entry(self.item_id, description, described_us, available, available_us)

    @property
    def is_offered(self) -> bool:
        """Whether users may get the item."""
        return self.available and self.description != REMOVED

    def item(self) -> Item | None:
        """Return the described item; None without a description."""
        if self.description in {"", REMOVED}:
            return None
        found = msgspec.json.decode(self.description, type=_Description)
        return Item(self.item_id, found.title, found.attributes)


class _Description(Struct, frozen=True):
    title: str = ""
    attributes: dict[str, tuple[str, ...]] = {}


def describe(item: Item, *, at_us: int) -> Entry:
    """Return the entry of a change to the description of *item*."""
    text = msgspec.json.encode(_Description(item.title, item.attributes), order="sorted").decode()
    return Entry(item.item_id, text, at_us)


class Catalogue(Protocol):
    """The entries of a store. Every implementation passes tests/catalogue/test_catalogues.py and raises `StoreError`s."""

    async def put(self, entries: Sequence[Entry]) -> list[bool]:
        """
        Merge *entries* into those of the store; tell for each whether it changed something.

        After the call returns, the changes survive the end of this process, and may be sent again.
        """
        ...

    async def read(self, *, after: int) -> tuple[int, list[Entry]]:
        """
        Return the revision of the catalogue, and the entries that changed after the revision *after*.

        Each change raises the revision. A revision below *after* means that the store was replaced: read again after 0.
        """
        ...

    async def aclose(self) -> None:
        """Close files and connections."""
        ...
