"""
Read MovieLens data in all of its layouts.

The oldest layout has the tab-separated `u.data` with `u.item` and `u.user`. A newer one has `ratings.dat` with
`movies.dat` and `users.dat`, separated by `::`. These files are in Latin-1. The present layout has `ratings.csv` with
`movies.csv`, which are tables with named columns. The rating is the weight.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from offline.reading.columns import count_known
from offline.reading.csv_files import read_csv
from offline.reading.faults import Faults, parse_each
from offline.reading.lines import ImportedUser, Row, Source, checked_source, read_lines
from offline.reading.values import Ids, named_values, parse_integer, parse_past_us, parse_weight, split
from recrank.artefact import Item
from recsys.features import group_age

_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
_GENRE_COLUMN = 5
# Titles end with the year, for example "Toy Story (1995)".
_YEAR = re.compile(r"\((\d{4})\)\s*$")
_ENCODING = "latin-1"


def read_movielens(
    interactions: Path | None, *, items: Path | None, users: Path | None, faults: Faults | None = None
) -> Source:
    """
    Return the content of the files; rows are read on demand. Without *interactions* there are no rows.

    Raises:
        DataError: a file or one of its lines cannot be used.
    """
    faults = faults or Faults()
    first = interactions or items
    if first and _has_header(first):
        return read_csv(interactions, items=items, users=users, faults=faults)
    return checked_source(
        _rows(interactions, faults) if interactions else iter(()),
        items=_items(items, faults) if items else None,
        users=_users(users, faults) if users else None,
        faults=faults,
    )


def _has_header(path: Path) -> bool:
    _, first = next(read_lines(path, encoding=_ENCODING), (1, ""))
    return isinstance(first, str) and count_known(first.split(","), {}) > 1


def _rows(path: Path, faults: Faults) -> Iterator[Row]:
    users, films = Ids("the user id"), Ids("the item id")

    def parse(text: str) -> Row:
        user_id, item_id, rating, timestamp = split(text, _separator(text, "\t"), least=4)[:4]
        return Row(users[user_id], films[item_id], parse_weight(rating), parse_past_us(timestamp))

    return parse_each(read_lines(path, encoding=_ENCODING), parse, path=path, faults=faults)


def _items(path: Path, faults: Faults) -> Iterator[Item]:
    films = Ids("the item id")

    def parse(text: str) -> Item:
        separator = _separator(text, "|")
        fields = split(text, separator, least=2)
        if separator == "::":
            genres = "".join(fields[2:3])
        else:
            flags = fields[_GENRE_COLUMN:]
            genres = "|".join(genre for genre, flag in zip(_GENRES, flags, strict=False) if flag == "1")
        year = "".join(_YEAR.findall(fields[1]))
        return Item(films[fields[0]], fields[1], named_values({"category": genres, "year": year}))

    return parse_each(read_lines(path, encoding=_ENCODING), parse, path=path, faults=faults)


def _users(path: Path, faults: Faults) -> Iterator[ImportedUser]:
    users = Ids("the user id")

    def parse(text: str) -> ImportedUser:
        separator = _separator(text, "|")
        fields = split(text, separator, least=3)
        age = fields[2] if separator == "::" else fields[1]
        return ImportedUser(users[fields[0]], group_age(parse_integer(age, "the age")))

    return parse_each(read_lines(path, encoding=_ENCODING), parse, path=path, faults=faults)


def _separator(text: str, otherwise: str) -> str:
    return "::" if "::" in text else otherwise
