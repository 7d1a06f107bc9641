"""
Read MovieLens data in both of its layouts.

The older layout has the tab-separated `u.data` with `u.item` and `u.user`. The newer one has `ratings.dat` with
`movies.dat` and `users.dat`, separated by `::`. The rating is the weight. All files are in Latin-1.
"""

from collections.abc import Iterator
from pathlib import Path

from offline.reading.lines import Line, Row, Source, read_lines
from recsys.features import group_age
from recsys.ranking.artefact import Item

_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
_GENRE_COLUMN = 5


def read_movielens(interactions: Path, *, items: Path | None, users: Path | None) -> Source:
    """
    Return the content of the files; rows are read on demand.

    Raises:
        DataError: a file or one of its lines cannot be used.
    """
    return Source(
        _rows(interactions),
        items={item.item_id: item for item in _items(items)} if items else {},
        age_groups=dict(_age_groups(users)) if users else {},
    )


def _rows(path: Path) -> Iterator[Row]:
    for line in read_lines(path, encoding="latin-1"):
        user_id, item_id, rating, timestamp = line.split(_separator(line, "\t"), least=4)[:4]
        yield Row(
            line.id(user_id, "the user id"),
            line.id(item_id, "the item id"),
            line.weight(rating),
            line.seconds(timestamp),
        )


def _items(path: Path) -> Iterator[Item]:
    for line in read_lines(path, encoding="latin-1"):
        separator = _separator(line, "|")
        fields = line.split(separator, least=2)
        if separator == "::":
            category = fields[2].split("|")[0] if len(fields) > 2 else ""
        else:
            flags = fields[_GENRE_COLUMN:]
            category = next((genre for genre, flag in zip(_GENRES, flags, strict=False) if flag == "1"), "")
        yield Item(line.id(fields[0], "the item id"), fields[1], category)


def _age_groups(path: Path) -> Iterator[tuple[str, str]]:
    for line in read_lines(path, encoding="latin-1"):
        separator = _separator(line, "|")
        fields = line.split(separator, least=3)
        age = fields[2] if separator == "::" else fields[1]
        yield line.id(fields[0], "the user id"), group_age(line.integer(age, "the age"))


def _separator(line: Line, otherwise: str) -> str:
    return "::" if "::" in line.text else otherwise
