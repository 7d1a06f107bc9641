"""
Three shops that differ: their declarations, and generated data with a planted structure.

Every user has a taste: the items of a group. The newest choices of a user also follow a rule of the shop, which other
users' choices do not tell. The rule uses declared features; a feature with noise has no part in it.
"""

import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.trained import write_csv

GROUPS, ITEMS_OF_GROUP, USERS, VISITS = 4, 32, 160, 10
# The visits that follow the rule.
_RULED = 3
_DAY_S = 86_400
_START_S = 20_370 * _DAY_S
# The beginning of a day on which many users come.
MIDNIGHT_S = _START_S + 17 * _DAY_S
HOUR_S = 3600
_FIRST_VISIT_S, _BETWEEN_VISITS_S, _BETWEEN_ITEMS_S = 6 * _DAY_S, int(0.6 * _DAY_S), int(0.6 * _DAY_S)

FILMS = """
[events]
rating = { weight = 1, counter = "views" }
hide = { weight = -1 }

[items.attributes]
title = { kind = "text", column = "name" }
genres = { kind = "multi-valued" }
stars = { kind = "number" }
year = { kind = "number" }

[users.attributes]
mood = { kind = "categorical" }

[context]
screen = { kind = "categorical" }

[features]
mood_fits = { kind = "match", attribute = "genres", user_attribute = "mood" }
stars = { kind = "attribute", of = "item", attribute = "stars" }
year = { kind = "attribute", of = "item", attribute = "year" }
"""

FASHION = """
[events]
view = { weight = 1, counter = "views" }
add_to_cart = { weight = 3, counter = "clicks" }
purchase = { weight = 5, counter = "purchases" }
return = { weight = -5 }

[items.attributes]
title = { kind = "text" }
brand = { kind = "categorical" }
price = { kind = "number" }
size = { kind = "multi-valued", column = "sizes" }
colour = { kind = "categorical" }

[rules]
filters = ["brand", "price", "size"]
caps = { brand = 3 }
"""

SIZES_FIT = """
[context]
device = { kind = "categorical" }
temperature = { kind = "number" }

[users.attributes]
size = { kind = "categorical" }

[features]
size_fits = { kind = "match", attribute = "size", user_attribute = "size" }
price = { kind = "attribute", of = "item", attribute = "price" }
bought = { kind = "counter", name = "purchases" }
brand_fits = { kind = "match", attribute = "brand" }
colour_fits = { kind = "match", attribute = "colour" }

[training]
sources = []
"""

NEWS = """
[events]
read = { weight = 1, counter = "views" }
skip = { weight = -1 }

[items.attributes]
title = { kind = "text", column = "headline" }
section = { kind = "categorical" }
published = { kind = "time" }
minutes = { kind = "number" }

[context]
page = { kind = "categorical" }

[features]
age = { kind = "time_since", attribute = "published" }
hour = { kind = "hour" }
minutes = { kind = "attribute", of = "item", attribute = "minutes" }
weekday = { kind = "weekday" }

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
        row: Returns the line of an interaction: number of the user, item, number of the visit, time in seconds.
        item_header: The columns of its items.
        item: Returns the line of an item.
        user_header: The columns of its users; empty without a file of users.
        user: Returns the line of a user.
        wanted: Returns the places in a group that a user wants at a time, best first.
        deciding: The features of the rule.
        noise: A feature that has no part in it.
        group_attribute: The attribute that says the planted group of an item.
        group_value: Returns the value of a group.
        like, dislike: Kinds of events.
        range_attribute: A number or a time of the items, by which the test filters.
        range_start: Returns the least value that the items from a place on in their group have.
        context: Declared values that a request may carry.
    """

    declaration: str
    header: str
    row: Callable[[int, str, int, int], str]
    item_header: str
    item: Callable[[int, int], str]
    user_header: str
    user: Callable[[int], str]
    wanted: Callable[[int, int], Sequence[int]]
    deciding: Collection[str]
    noise: str
    group_attribute: str
    group_value: Callable[[int], str]
    like: str
    dislike: str
    range_attribute: str
    range_start: Callable[[int], float]
    context: Mapping[str, str | float]

    def write(self, folder: Path) -> Mapping[str, Path]:
        """Write the declaration and the data into *folder*; return the files by the names of their options."""
        tables = {"interactions": (self.header, self._rows()), "items": (self.item_header, self._items())}
        if self.user_header:
            tables["users"] = (self.user_header, map(self.user, range(USERS)))
        declaration = folder / "declaration.toml"
        declaration.write_text(self.declaration, "utf-8")
        files = {name: write_csv(folder / f"{name}.csv", *table) for name, table in tables.items()}
        return {"declaration": declaration, **files}

    def _rows(self) -> Iterator[str]:
        draw = random.Random(5)
        for user in range(USERS):
            seen: set[str] = set()
            first_s = _START_S + _FIRST_VISIT_S + draw.randrange(7 * _DAY_S)
            for visit in range(VISITS):
                time_s = first_s + visit * _BETWEEN_VISITS_S + draw.randrange(_BETWEEN_VISITS_S)
                group = draw.randrange(GROUPS) if visit == 4 else user % GROUPS
                wanted = self.wanted(user, time_s) if visit >= VISITS - _RULED else _shuffled(published(time_s), draw)
                item = next(
                    each for place in (*wanted, *published(time_s)) if (each := item_id(group, place)) not in seen
                )
                seen.add(item)
                yield self.row(user, item, visit, time_s)

    def _items(self) -> Iterator[str]:
        for group in range(GROUPS):
            for place in range(ITEMS_OF_GROUP):
                yield self.item(group, place)


def item_id(group: int, place: int) -> str:
    return f"item_{group}_{place}"


def published(time_s: int) -> range:
    """Return the places of the items that were published by *time_s*."""
    return range(min(ITEMS_OF_GROUP, (time_s - _START_S) // _BETWEEN_ITEMS_S + 1))


def _shuffled(places: range, draw: random.Random) -> list[int]:
    return draw.sample(places, len(places))


def _kind_of(user: int) -> int:
    """Return which of four moods or sizes *user* has."""
    return user // GROUPS % 4


def _buys(user: int) -> bool:
    return user // (4 * GROUPS) % 2 == 1


def _stars(place: int) -> int:
    return place * 7 % ITEMS_OF_GROUP


def _wanted_films(user: int, _time_s: int) -> Sequence[int]:
    """The user wants films of the mood, those with many stars first."""
    return sorted(range(_kind_of(user), ITEMS_OF_GROUP, 4), key=_stars, reverse=True)


def _wanted_clothes(user: int, _time_s: int) -> Sequence[int]:
    """The user wants clothes of the size: expensive ones if the user buys, and cheap ones otherwise."""
    return sorted(range(_kind_of(user), ITEMS_OF_GROUP, 4), reverse=_buys(user))


def _wanted_news(_user: int, time_s: int) -> Sequence[int]:
    """The user wants the newest articles: short ones, of even places, by day, and long ones in the evening."""
    parity = int(time_s % _DAY_S >= 17 * HOUR_S)
    return sorted((place for place in published(time_s) if place % 2 == parity), reverse=True)


SHOPS = {
    "films": Shop(
        declaration=FILMS,
        header="userId,movieId,rating,timestamp",
        row=lambda user, item, visit, time_s: f"user_{user},{item},{visit % 5 + 1},{time_s}",
        item_header="movieId,name,genres,stars,year",
        item=lambda group, place: (
            f"{item_id(group, place)},Film {group}-{place},Genre {group}|Mood {place % 4},{_stars(place)},{1990 + place}"
        ),
        user_header="user,mood",
        user=lambda user: f"user_{user},Mood {_kind_of(user)}",
        wanted=_wanted_films,
        deciding=("mood_fits", "stars"),
        noise="year",
        group_attribute="genres",
        group_value=lambda group: f"Genre {group}",
        like="rating",
        dislike="hide",
        range_attribute="year",
        range_start=lambda place: 1990 + place,
        context={"screen": "wide"},
    ),
    "fashion": Shop(
        declaration=FASHION + SIZES_FIT,
        header="user;item;kind;time",
        row=lambda user, item, visit, time_s: (
            f"user_{user};{item};{'purchase' if _buys(user) else ('view', 'add_to_cart')[visit % 2]};{time_s}"
        ),
        item_header="item;title;brand;price;sizes;colour",
        item=lambda group, place: (
            f"{item_id(group, place)};Coat {group}-{place};Brand {group};{place * 10}.5;"
            f"{['XS|S', 'M', 'L', 'XL'][place % 4]};Colour {place % 5}"
        ),
        user_header="user;size",
        user=lambda user: f"user_{user};{['S', 'M', 'L', 'XL'][_kind_of(user)]}",
        wanted=_wanted_clothes,
        deciding=("size_fits", "price", "bought", "brand_fits"),
        noise="colour_fits",
        group_attribute="brand",
        group_value=lambda group: f"Brand {group}",
        like="purchase",
        dislike="return",
        range_attribute="price",
        range_start=lambda place: place * 10,
        context={"device": "phone", "temperature": 12.5},
    ),
    "news": Shop(
        declaration=NEWS,
        header="user\titem\tkind\ttime",
        row=lambda user, item, _visit, time_s: f"session-{user}\t{item}\tread\t{time_s * 1000}",
        item_header="item\theadline\tsection\tpublished\tminutes",
        item=lambda group, place: (
            f"{item_id(group, place)}\tNews {group}-{place}\tSection {group}\t"
            f"{_START_S + place * _BETWEEN_ITEMS_S}\t{2 + place % 2 * 10 + place % 3}"
        ),
        user_header="",
        user=lambda _: "",
        wanted=_wanted_news,
        deciding=("age", "hour", "minutes"),
        noise="weekday",
        group_attribute="section",
        group_value=lambda group: f"Section {group}",
        like="read",
        dislike="skip",
        range_attribute="published",
        range_start=lambda place: _START_S + place * _BETWEEN_ITEMS_S,
        context={"page": "front"},
    ),
}
