"""Three shops that differ: their declarations, and generated data with planted tastes."""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

GROUPS, ITEMS_OF_GROUP, USERS = 4, 12, 120
_START_S = 1_760_000_000

FILMS = """
[events.rating]
weight = 1
counter = "views"

[events.hide]
weight = -1

[items.attributes]
title = { kind = "text", column = "name" }
genres = { kind = "multi-valued" }
year = { kind = "number" }
"""

FASHION = """
[events.view]
weight = 1
counter = "views"
[events.add_to_cart]
weight = 3
counter = "clicks"
[events.purchase]
weight = 5
counter = "purchases"
[events.return]
weight = -5

[items.attributes]
title = { kind = "text" }
brand = { kind = "categorical" }
price = { kind = "number" }
size = { kind = "multi-valued", column = "sizes" }

[rules]
filters = ["brand", "price", "size"]
caps = { brand = 3 }
"""

NEWS = """
[events.read]
weight = 1
counter = "views"
[events.skip]
weight = -1

[items.attributes]
title = { kind = "text", column = "headline" }
section = { kind = "categorical" }
published = { kind = "time" }

[training]
sources = ["neighbours", "attributes"]
"""


@dataclass(frozen=True)
class Shop:
    """
    A shop.

    Attributes:
        declaration: Its declaration.
        header: The columns of its interactions.
        row: Returns the line of an interaction: user, item, number of the event.
        item_header: The columns of its items.
        item: Returns the line of an item.
        group_attribute: The attribute that says the planted group of an item.
        group_value: Returns the value of a group.
        like, dislike: Kinds of events.
        range_attribute: A number or a time of the items, by which the test filters.
        range_start: Returns the least value that the items from a place on in their group have.
    """

    declaration: str
    header: str
    row: Callable[[str, str, int], str]
    item_header: str
    item: Callable[[int, int], str]
    group_attribute: str
    group_value: Callable[[int], str]
    like: str
    dislike: str
    range_attribute: str
    range_start: Callable[[int], float]

    def write(self, folder: Path) -> Mapping[str, Path]:
        """Write the declaration and the data into *folder*; return the files by the names of their options."""
        texts = {
            "declaration": self.declaration,
            "interactions": "\n".join([self.header, *self._rows()]) + "\n",
            "items": "\n".join([self.item_header, *self._items()]) + "\n",
        }
        files = {name: folder / f"{name}.{'toml' if name == 'declaration' else 'csv'}" for name in texts}
        for name, text in texts.items():
            files[name].write_text(text, "utf-8")
        return files

    def _rows(self) -> Iterator[str]:
        draw = random.Random(5)
        for user in range(USERS):
            places = draw.sample(range(ITEMS_OF_GROUP), 6)
            for number, place in enumerate(places):
                group = user % GROUPS if number < 5 else draw.randrange(GROUPS)
                yield self.row(f"user_{user}", item_id(group, place), user * 10 + number)

    def _items(self) -> Iterator[str]:
        for group in range(GROUPS):
            for place in range(ITEMS_OF_GROUP):
                yield self.item(group, place)


def item_id(group: int, place: int) -> str:
    return f"item_{group}_{place}"


def _kind(number: int) -> str:
    return ("view", "add_to_cart", "purchase")[number % 3]


SHOPS = {
    "films": Shop(
        declaration=FILMS,
        header="userId,movieId,rating,timestamp",
        row=lambda user, item, number: f"{user},{item},{number % 5 + 1},{_START_S + number * 60}",
        item_header="movieId,name,genres,year",
        item=lambda group, place: f"{item_id(group, place)},Film {group}-{place},Genre {group}|Any,{1990 + place}",
        group_attribute="genres",
        group_value=lambda group: f"Genre {group}",
        like="rating",
        dislike="hide",
        range_attribute="year",
        range_start=lambda place: 1990 + place,
    ),
    "fashion": Shop(
        declaration=FASHION,
        header="user;item;kind;time",
        row=lambda user, item, number: f"{user};{item};{_kind(number)};{_START_S + number * 60}",
        item_header="item;title;brand;price;sizes",
        item=lambda group, place: f"{item_id(group, place)};Coat {group}-{place};Brand {group};{place * 10}.5;S|M",
        group_attribute="brand",
        group_value=lambda group: f"Brand {group}",
        like="purchase",
        dislike="return",
        range_attribute="price",
        range_start=lambda place: place * 10,
    ),
    "news": Shop(
        declaration=NEWS,
        header="user\titem\tkind\ttime",
        row=lambda user, item, number: f"session-{user}\t{item}\tread\t{(_START_S + number * 60) * 1000}",
        item_header="item\theadline\tsection\tpublished",
        item=lambda group, place: f"{item_id(group, place)}\tNews {group}-{place}\tSection {group}\t{_START_S + place}",
        group_attribute="section",
        group_value=lambda group: f"Section {group}",
        like="read",
        dislike="skip",
        range_attribute="published",
        range_start=lambda place: _START_S + place,
    ),
}
