"""Read the lines of a text file with a progress bar; errors name the file and the line number."""

import gzip
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tqdm import tqdm

from chassis.wire.decoder import NOT_TEXT
from recsys.contracts.wire import MAX_ID_LENGTH
from recsys.ranking.artefact import Item

_LARGEST_WEIGHT = 2**32  # so that sums of weights stay exact, see offline/collecting.py
_LATEST_S = 4_102_444_800  # 2100-01-01; a larger number is probably not in seconds


class DataError(Exception):
    """A data file cannot be used; the message names the file, the line and the reason."""


@dataclass(frozen=True)
class Row:
    """An interaction: a line of an interaction file. The time is in microseconds since the epoch, or None."""

    user_id: str
    item_id: str
    weight: float
    time_us: int | None


@dataclass(frozen=True)
class Source:
    """The data of an import: the interactions, the known items by id, and the known age groups by user id."""

    rows: Iterator[Row]
    items: dict[str, Item] = field(default_factory=dict)
    age_groups: dict[str, str] = field(default_factory=dict)


class Line:
    """A line to parse. A fault in it raises a `DataError` that names the file and the line number."""

    def __init__(self, path: Path, number: int, text: str) -> None:
        self._path = path
        self.number = number
        self.text = text

    def fail(self, reason: str) -> DataError:
        """Return the error for this line."""
        return DataError(f"{self._path}:{self.number}: {reason}")

    def split(self, separator: str, *, least: int) -> list[str]:
        """
        Return the line's fields.

        Raises:
            DataError: the line has fewer than *least* fields.
        """
        fields = self.text.split(separator)
        if len(fields) < least:
            raise self.fail(f"{least} fields separated by {separator!r} wanted, found {len(fields)}")
        return fields

    def id(self, text: str, what: str) -> str:
        """
        Return *text* if it is an id that the functions accept.

        Raises:
            DataError: *text* is empty, too long, or has unprintable characters.
        """
        if not 1 <= len(text) <= MAX_ID_LENGTH or NOT_TEXT.search(text):
            raise self.fail(f"{what} must be 1 to {MAX_ID_LENGTH} printable characters, not {text[:40]!r}")
        return text

    def weight(self, text: str) -> float:
        """
        Return a weight.

        Raises:
            DataError: *text* is not a number above 0 and at most 2**32.
        """
        try:
            weight = float(text)
        except ValueError:
            weight = math.nan
        if not (math.isfinite(weight) and weight > 0):
            raise self.fail(f"the weight must be a number above 0, not {text!r}")
        if weight > _LARGEST_WEIGHT:
            raise self.fail(f"the weight must be at most {_LARGEST_WEIGHT}, not {text!r}")
        return weight

    def seconds(self, text: str) -> int:
        """
        Return a time given in seconds since the epoch, in microseconds.

        Raises:
            DataError: *text* is not a number, or not a time between 1970 and 2100.
        """
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not 0 <= seconds < _LATEST_S:
            raise self.fail(f"the timestamp must be seconds since 1970, not {text!r}")
        return round(seconds * 1_000_000)

    def integer(self, text: str, what: str) -> int:
        """
        Return a whole number of at least 0.

        Raises:
            DataError: *text* is not such a number.
        """
        if not (text.isascii() and text.isdecimal() and len(text) < 10):
            raise self.fail(f"{what} must be a whole number, not {text!r}")
        return int(text)


def read_lines(path: Path, *, encoding: str = "utf-8") -> Iterator[Line]:
    """
    Yield the lines of *path* without line ends and without blank lines. A file with the suffix .gz is decompressed.

    Raises:
        DataError: the file cannot be read, or a line is not in *encoding*.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as raw, tqdm(total=size, unit="B", unit_scale=True, desc=path.name, disable=None) as bar:
            for number, content in enumerate(_unpacked(raw, path), 1):
                if number % 4096 == 0:
                    bar.update(raw.tell() - bar.n)
                text = _decode(content, path, number, encoding)
                if text.strip():
                    yield Line(path, number, text)
            bar.update(size - bar.n)
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def _unpacked(raw: IO[bytes], path: Path) -> IO[bytes] | gzip.GzipFile:
    return gzip.open(raw) if path.suffix == ".gz" else raw


def _decode(content: bytes, path: Path, number: int, encoding: str) -> str:
    try:
        return content.decode(encoding).rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}:{number}: not {encoding} at byte {error.start + 1} of the line") from error
