"""The items of a catalogue. This module needs no numeric library, because extract_features has none."""

import math
from collections.abc import Iterator

from msgspec import Struct


class Item(Struct, frozen=True, omit_defaults=True):
    """
    A catalogue entry; its place in the list is its row in the item arrays.

    Attributes:
        item_id: The id.
        title: The title, for people.
        attributes: Values by attribute name, for example {"category": ("Drama", "War"), "brand": ("acme",)}.
    """

    item_id: str
    title: str = ""
    attributes: dict[str, tuple[str, ...]] = {}

    @property
    def category(self) -> str:
        """The first category; "" without one."""
        return next(iter(self.attributes.get("category", ())), "")

    def number(self, name: str) -> float:
        """Return the value of the attribute *name* as a number; NaN if it has none that is a finite number."""
        try:
            number = float(self.attributes[name][0])
        except (KeyError, IndexError, ValueError):
            return math.nan
        return number if math.isfinite(number) else math.nan

    def values(self) -> Iterator[tuple[str, str]]:
        """Yield a pair of attribute name and value for every value."""
        for name, values in self.attributes.items():
            for value in values:
                yield name, value
