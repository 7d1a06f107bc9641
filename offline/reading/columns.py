"""
Find the columns of a table by their names.

Case, spaces, hyphens and underscores of a name do not count: `userId`, `USER_ID` and `user id` are one name. Each field
has several usual names, and the caller may give another one.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from offline.reading.faults import DataError

# The usual names of each field; the first one that a table has is used.
NAMES: Mapping[str, tuple[str, ...]] = {
    "user": ("user_id", "user"),
    "item": ("item_id", "item", "movie_id"),
    "weight": ("weight", "rating"),
    "time": ("timestamp", "time"),
    "kind": ("kind",),
    "title": ("title", "name"),
    "category": ("category", "genres"),
    "age_group": ("age_group",),
    "age": ("age",),
}
INTERACTION = ("user", "item", "weight", "time", "kind")

_SHOWN_NAMES, _SHOWN_LENGTH = 20, 40
_SEPARATORS = re.compile(r"[\s_-]+")

Mapped = Mapping[str, Sequence[str]]
"""By field, the names of columns that the caller gave; the files may name a field differently."""


def parse_mapping(text: str | None) -> dict[str, list[str]]:
    """
    Return the column names of `user=uid,item=sku,item=article` by field; none for an absent text.

    Raises:
        ValueError: *text* has another form or names an unknown field; the message says so.
    """
    mapped: dict[str, list[str]] = {}
    for part in text.split(",") if text else ():
        field, separator, column = part.partition("=")
        if not separator or not column.strip():
            raise ValueError(f"{part!r} is not FIELD=COLUMN, such as user=uid")
        if field.strip() not in NAMES:
            raise ValueError(f"{field.strip()!r} is not a field; the fields are {', '.join(NAMES)}")
        mapped.setdefault(field.strip(), []).append(column.strip())
    return mapped


def count_known(header: Iterable[str], mapped: Mapped) -> int:
    """Return the number of names in *header* that belong to a field."""
    known = {normalise(name) for names in (*NAMES.values(), *mapped.values()) for name in names}
    return sum(normalise(name) in known for name in header)


def find_columns(
    path: Path, header: Sequence[str], fields: Sequence[str], *, required: Sequence[str], mapped: Mapped
) -> dict[str, int]:
    """
    Return the position of each of *fields* that *header* names.

    Raises:
        DataError: a required field is missing, a given column is missing, or a name stands twice in the header.
    """
    places: dict[str, list[int]] = {}
    for place, name in enumerate(header):
        places.setdefault(normalise(name), []).append(place)
    found = {field: at for field in fields if (at := _find(path, places, field, mapped)) is not None}
    if missing := [field for field in required if field not in found]:
        wanted = ", ".join(NAMES[field][0] for field in required)
        raise DataError(
            f"{path}:1: the header must name {wanted}; missing: {', '.join(NAMES[field][0] for field in missing)}; "
            f"found: {_listed(header)}; name other columns with --map {','.join(f'{each}=COLUMN' for each in missing)}"
        )
    return found


def check_mapped(path: Path, header: Sequence[str], fields: Sequence[str], *, mapped: Mapped) -> None:
    """
    Check that *header* has the columns that the caller gave for *fields*.

    Raises:
        DataError: a column is missing.
    """
    keys = {normalise(name) for name in header}
    for field in fields:
        if field in mapped and keys.isdisjoint(map(normalise, mapped[field])):
            names = " or ".join(map(repr, mapped[field]))
            raise DataError(f"{path}:1: the header has no column {names} for --map {field}=…; found: {_listed(header)}")


def _find(path: Path, places: Mapping[str, Sequence[int]], field: str, mapped: Mapped) -> int | None:
    for name in (*mapped.get(field, ()), *NAMES[field]):
        match places.get(normalise(name), ()):
            case [place]:
                return place
            case [_, _, *_]:
                raise DataError(f"{path}:1: the header names the column {name!r} twice; rename or remove one of them")
    return None


def _listed(header: Sequence[str]) -> str:
    """Return the first names of *header*, each cut, for a message."""
    names = [name if len(name) <= _SHOWN_LENGTH else f"{name[:_SHOWN_LENGTH]}…" for name in header[:_SHOWN_NAMES]]
    more = [f"and {len(header) - _SHOWN_NAMES} more"] if len(header) > _SHOWN_NAMES else []
    return ", ".join([*names, *more])


def normalise(name: str) -> str:
    """Return *name* without its case, spaces, hyphens and underscores."""
    return _SEPARATORS.sub("", name.casefold())
