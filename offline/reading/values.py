"""Parse the values of a line. A fault raises `Malformed`, and the reader of the file adds the file and the line."""

import math
import time
from collections.abc import Mapping

from chassis.wire.text import NOT_TEXT
from recsys.contracts.wire import MAX_ID_LENGTH
from recsys.declaration.values import Malformed, not_a_number, parse_number, parse_time_us

_LARGEST_WEIGHT = 2**32  # so that sums of weights stay exact, see offline/collection.py
_LONGEST_VALUE = 100
_DAY_S = 86_400
_NO_GENRE = "(no genres listed)"  # in MovieLens


class Ids(dict[str, str]):
    """
    The valid ids of a column: `ids[text]` returns *text* if the functions accept it as an id.

    Each distinct id is checked and kept once, so that a million rows of one id share one string.

    Raises:
        Malformed: the text is empty, too long, or has unprintable characters.
    """

    def __init__(self, column: str) -> None:
        super().__init__()
        self._column = column

    def __missing__(self, text: str) -> str:
        if not 1 <= len(text) <= MAX_ID_LENGTH or NOT_TEXT.search(text):
            raise Malformed(f"{self._column} must be 1 to {MAX_ID_LENGTH} printable characters", f", not {text[:40]!r}")
        self[text] = text
        return text


def named_values(cells: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """
    Return the distinct values in each of *cells*, separated by bars, by attribute name.

    A long text is a description and no value. Attributes without a value are left out.
    """
    named = {name: split_values(cell, separator="|") for name, cell in cells.items()}
    return {name: values for name, values in named.items() if values}


def split_values(cell: str, *, separator: str | None) -> tuple[str, ...]:
    """Return the distinct values in *cell*; without a *separator*, the cell is one value."""
    values = dict.fromkeys(part.strip() for part in (cell.split(separator) if separator else [cell]))
    return tuple(value for value in values if 0 < len(value) <= _LONGEST_VALUE and value != _NO_GENRE)


def split(text: str, separator: str, *, least: int) -> list[str]:
    """
    Return the fields of *text*.

    Raises:
        Malformed: there are fewer than *least* fields.
    """
    fields = text.split(separator)
    if len(fields) < least:
        raise Malformed(f"{least} fields separated by {separator!r} wanted", f", found {len(fields)}")
    return fields


def parse_past_us(text: str) -> int:
    """
    Return the time of an interaction in microseconds since the epoch.

    The newest time tells a training who was away and which items are popular now, so a single time in the future would
    change the lists of all users. Times of the next day pass, because a file may have those of another zone.

    Raises:
        Malformed: `parse_time_us` cannot read *text*, or the time lies in the future.
    """
    time_us = parse_time_us(text)
    if time_us > (time.time() + _DAY_S) * 1_000_000:
        raise Malformed("the timestamp lies in the future", f": {text[:40]!r}")
    return time_us


def parse_weight(text: str) -> float:
    """
    Return a weight.

    Raises:
        Malformed: *text* is not a number above 0 and at most 2**32.
    """
    weight = parse_number(text)
    if 0 < weight <= _LARGEST_WEIGHT:
        return weight
    if math.isfinite(weight) and weight > 0:
        raise Malformed(f"the weight must be at most {_LARGEST_WEIGHT}", f", not {text[:40]!r}")
    raise Malformed("the weight must be a number above 0", not_a_number(text))


def parse_integer(text: str, column: str) -> int:
    """
    Return a whole number of at least 0.

    Raises:
        Malformed: *text* is not such a number.
    """
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise Malformed(f"{column} must be a whole number", f", not {text[:40]!r}")
    return int(text)
