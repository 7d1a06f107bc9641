"""Read numbers and times: the values of declared attributes, and the columns of files."""

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from recsys.declaration.types import AttributeKind

_LATEST_S = 4_102_444_800  # 2100-01-01
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# Numbers from 1973 to 2100 in milliseconds are too large to be seconds. The same holds for the next two units.
_EARLIEST_IN_SMALL_UNITS_S = 100_000_000
_SMALL_UNITS = (1_000, 1_000_000, 1_000_000_000)


class Malformed(Exception):  # noqa: N818 - an adjective of the value, which the reader turns into a fault
    """
    A value, or the line that holds it, cannot be used.

    Attributes:
        kind: The rule that is broken; the same text for all faults of this kind.
    """

    def __init__(self, kind: str, found: str = "") -> None:
        super().__init__(kind + found)
        self.kind = kind


def parse_number(text: str) -> float:
    """Return a number; NaN if *text* is not one."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def not_a_number(text: str) -> str:
    """Return the end of a message that refuses *text* as a number."""
    return f", not {text[:40]!r}{'; write decimals with a point' * (',' in text)}"


def parse_time_us(text: str) -> int:
    """
    Return a time in microseconds since the epoch.

    A number is in seconds, or in milliseconds, microseconds or nanoseconds if it is too large for the larger unit.
    Other text is ISO 8601; without a zone, the time is UTC.

    Raises:
        Malformed: *text* has another form, or the time is not between 1970 and 2100.
    """
    number = parse_number(text)
    time_us = _iso_us(text) if math.isnan(number) or _is_date(text) else _number_us(number)
    if time_us is None:
        raise Malformed(
            "the timestamp must be seconds or milliseconds since 1970, or ISO 8601, between 1970 and 2100",
            f", not {text[:40]!r}",
        )
    return time_us


def canonical_number(text: str, name: str) -> str:
    """
    Return a value of the attribute *name* of the kind `number` as items have it.

    Raises:
        Malformed: *text* is not a finite number.
    """
    number = parse_number(text)
    if not math.isfinite(number):
        raise Malformed(f"{name} must be a number", not_a_number(text))
    return repr(number)


def canonical_time(text: str, name: str) -> str:
    """
    Return a value of the attribute *name* of the kind `time` as items have it, in seconds since the epoch.

    Raises:
        Malformed: `parse_time_us` cannot read *text*.
    """
    try:
        return repr(parse_time_us(text) / 1_000_000)
    except Malformed as error:
        raise Malformed(f"{name}: {error.kind}", f", not {text[:40]!r}") from error


CANONICAL: Mapping[AttributeKind, Callable[[str, str], str]] = {"number": canonical_number, "time": canonical_time}
"""Reads a value of each kind that has one form in items."""


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
