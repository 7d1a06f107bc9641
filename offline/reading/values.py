"""Parse the values of a line. A fault raises `Malformed`, and the reader of the file adds the file and the line."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from chassis.wire.decoder import NOT_TEXT
from recsys.contracts.wire import MAX_ID_LENGTH

_LARGEST_WEIGHT = 2**32  # so that sums of weights stay exact, see offline/collecting.py
_LATEST_S = 4_102_444_800  # 2100-01-01
_LONGEST_VALUE = 100
_NO_GENRE = "(no genres listed)"  # in MovieLens
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# Numbers from 1973 to 2100 in milliseconds are too large to be seconds. The same holds for the next two units.
_EARLIEST_IN_SMALL_UNITS_S = 100_000_000
_SMALL_UNITS = (1_000, 1_000_000, 1_000_000_000)


class Malformed(Exception):  # noqa: N818 - an adjective of the line, which the reader turns into a fault
    """
    A line or a value in it cannot be used.

    Attributes:
        kind: The rule that is broken; the same text for all faults of this kind.
    """

    def __init__(self, kind: str, found: str = "") -> None:
        super().__init__(kind + found)
        self.kind = kind


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


def parse_weight(text: str) -> float:
    """
    Return a weight.

    Raises:
        Malformed: *text* is not a number above 0 and at most 2**32.
    """
    weight = _number(text)
    if 0 < weight <= _LARGEST_WEIGHT:
        return weight
    if math.isfinite(weight) and weight > 0:
        raise Malformed(f"the weight must be at most {_LARGEST_WEIGHT}", f", not {text[:40]!r}")
    raise Malformed("the weight must be a number above 0", f", not {text[:40]!r}")


def parse_time_us(text: str) -> int:
    """
    Return a time in microseconds since the epoch.

    A number is in seconds, or in milliseconds, microseconds or nanoseconds if it is too large for the larger unit.
    Other text is ISO 8601; without a zone, the time is UTC.

    Raises:
        Malformed: *text* has another form, or the time is not between 1970 and 2100.
    """
    time_us = _iso_us(text) if _is_date(text) or math.isnan(_number(text)) else _number_us(_number(text))
    if time_us is None:
        raise Malformed(
            "the timestamp must be seconds or milliseconds since 1970, or ISO 8601, between 1970 and 2100",
            f", not {text[:40]!r}",
        )
    return time_us


def parse_integer(text: str, column: str) -> int:
    """
    Return a whole number of at least 0.

    Raises:
        Malformed: *text* is not such a number.
    """
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise Malformed(f"{column} must be a whole number", f", not {text[:40]!r}")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _number_us(number: float) -> int | None:
    if 0 <= number < _LATEST_S:
        return round(number * 1_000_000)
    for unit in _SMALL_UNITS:
        if _EARLIEST_IN_SMALL_UNITS_S <= number / unit < _LATEST_S:
            return round(number * (1_000_000 / unit))
    return None


def _is_date(text: str) -> bool:
    """Tell whether *text* is a date such as 20240131, and not the number of a second in 1970."""
    return len(text) == 8 and text[:2] in {"19", "20"} and text.isdecimal() and _iso_us(text) is not None


def _iso_us(text: str) -> int | None:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    time_us = (moment - _EPOCH) // _MICROSECOND
    return time_us if 0 <= time_us < _LATEST_S * 1_000_000 else None
